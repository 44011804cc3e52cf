"""What the pages of all reports have in common: templates beside this file, and how they print figures."""

from pathlib import Path

import jinja2


def page_environment() -> jinja2.Environment:
    """Templates that escape what they are given and refuse what they are not."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    environment.filters |= {
        "number": lambda value, digits: f"{value:.{digits}f}",
        "signed": lambda value: f"{value:+.4f}",
        "thousands": lambda value: f"{value:,}",
        "percent": lambda value: "–" if value is None else f"{value:.2%}",
        "end": lambda value: "unbounded" if value is None else f"{value:+.1%}",
    }
    return environment
