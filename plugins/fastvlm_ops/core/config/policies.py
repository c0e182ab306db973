"""``include/policies/*.json``: what each role may do in the bucket, as S3 servers understand it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from fastvlm_ops.core.config.reading import Definition, DefinitionFile

Text = Annotated[str, Field(min_length=1)]
Texts = Annotated[tuple[Text, ...], Field(strict=False, min_length=1)]


class Statement(Definition):
    """What is allowed or denied, on which objects."""

    Sid: Annotated[Text, Field(description="what it is for")]
    Effect: Annotated[Literal["Allow", "Deny"], Field(description="whether it is allowed")]
    Action: Annotated[Texts, Field(description="as in s3:PutObject")]
    Resource: Annotated[Texts, Field(description="as in arn:aws:s3:::BUCKET/PREFIX/packs/*")]
    Principal: Annotated[dict[str, Text | list[str]] | None, Field(description="of a bucket's policy")] = None
    Condition: Annotated[
        dict[str, dict[str, Text | list[str]]] | None, Field(description="when it applies")
    ] = None


class S3Policy(DefinitionFile):
    """A policy, for an identity or a bucket."""

    Version: Annotated[Literal["2012-10-17"], Field(description="of the language")]
    Statement: Annotated[
        tuple[Statement, ...], Field(strict=False, min_length=1, description="what is allowed or denied")
    ]
