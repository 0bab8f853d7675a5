"""The README's diagram is the table."""

from pathlib import Path

from groundstation.passes.states import mermaid


def test_the_readme_shows_the_state_table_as_it_is():
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    assert f"```mermaid\n{mermaid()}```" in readme
