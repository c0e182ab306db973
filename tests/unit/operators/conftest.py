"""A kit with Core ML models, for the tests of their operators."""

from tests.coreml_kit import coreml_package  # noqa: F401 - fixture
from tests.coreml_stack import golden_folders, models  # noqa: F401 - fixtures
