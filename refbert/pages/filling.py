"""Fill a template: the only place where text becomes HTML."""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, Any

from refbert.pages import numbers

if TYPE_CHECKING:
    from jinja2 import Environment

# What HTML or UTF-8 cannot hold, and what would reverse the text around it.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def fill(package: str, template: str, **values: Any) -> str:
    """Return the page that a template of the package's folder `templates` makes of the values.

    It extends `base.html`. Every value is escaped, None is nothing, and a name that is not there is an error.
    """
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", _environment(package).get_template(template).render(values))


@functools.cache
def _environment(package: str) -> Environment:
    import jinja2  # only those who write a page load it
    from markupsafe import Markup

    loader = jinja2.ChoiceLoader([jinja2.PackageLoader(package), jinja2.PackageLoader("refbert.pages")])
    made = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined,
        finalize=lambda value: "" if value is None else value, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    made.policies["json.dumps_kwargs"] = {"ensure_ascii": False, "allow_nan": False, "separators": (",", ":")}
    # A style or a script as it stands in the package: it is ours, and no template.
    made.globals["file"] = lambda name: Markup(loader.get_source(made, name)[0])
    made.filters |= {name: getattr(numbers, name) for name in numbers.__all__}
    return made
