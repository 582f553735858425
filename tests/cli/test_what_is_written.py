"""What the README and the examples show is what happens."""

import re
import shlex
from pathlib import Path

import pytest

from ..conftest import Shell

REPOSITORY = Path(__file__).parents[2]
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")

#: A notebook's cell has top-level await; ``model`` is the reader's own.
CELL = """
import ast, asyncio, inspect, sys

class Model:
    rows = 0
    def partial_fit(self, x, y):
        assert len(x) == len(y)
        self.rows += len(x)

names = {"model": Model()}
code = compile(sys.stdin.read(), "README.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
asyncio.run(eval(code, names))
print(names["model"].rows, names["cid"])
"""


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_python_of_the_readme(shell: Shell) -> None:
    """Its one example, as a notebook's cell."""
    (example,) = blocks("python")
    (shell.home / "cell.py").write_text(CELL.replace("sys.stdin.read()", repr(example)), encoding="utf-8")
    done = shell.python("cell.py")
    assert done.stderr == ""
    rows, cid = done.stdout.split()
    assert rows == "10000"
    assert cid.startswith("bafybei")


def test_shell_of_the_readme(shell: Shell) -> None:
    """Every command is one, and so is every option."""
    lines = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("dnc ")]
    assert len(lines) >= 4
    for line in lines:
        _, command, *words = shlex.split(line, comments=True)
        said = shell(command, "--help").stdout
        for word in words:
            assert not word.startswith("--") or word in said, line


@pytest.mark.parametrize("example", sorted((REPOSITORY / "examples").glob("*.py")), ids=lambda path: path.stem)
def test_examples(shell: Shell, example: Path) -> None:
    """Each runs, and leaves nothing behind."""
    pytest.importorskip("sklearn", reason="the extra 'demo' is not installed")
    done = shell.python(example)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split()[-1]) > 0.9
    assert [name for name in shell.files() if (shell.home / name).is_file()] == []
