"""Core ML models for the tests of their domain."""

from tests.coreml_kit import coreml_package, own_package, text_package, vision_package  # noqa: F401 - fixtures
