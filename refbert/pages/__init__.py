"""What every page is made with: templates that escape every text, one style, one set of plots, one number format."""

from refbert.pages.filling import fill
from refbert.pages.numbers import number
from refbert.pages.plots import Axis, LogAxis

__all__ = ["Axis", "LogAxis", "fill", "number"]
