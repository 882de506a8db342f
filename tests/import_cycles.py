#!/usr/bin/env python3
"""Lists the import cycles between the modules of each crate of this workspace.

    import_cycles.py [ROOT]    exit status: 0 no cycle, 1 cycles

A module depends on another one if its code names an item of it, in a `use` declaration or in a path such as
`super::names::of`. An item counts for the module that defines it, not for a module that re-exports it. Code for tests does
not count.

The script reads the files as text, without a compiler. It does not see method calls, which need no import, and names that
only a macro creates. `cargo modules dependencies --acyclic` is no substitute: it checks items instead of modules, and it
attributes the functions of an `impl` to the module of the type.

Python 3.9 or newer, standard library only.
"""

import re
import sys
from pathlib import Path
from typing import Optional

CRATES = {
    "syringe-core": "src",
    "node-probe": "node-probe/src",
    "gpu-syringe": "launcher/src",
    "demo-cluster": "launcher/demo-cluster/src",
}

# Comments, strings and characters; a lifetime is no character.
NOT_CODE = re.compile(
    r"""//[^\n]*|/\*.*?\*/|b?r(?P<hashes>\#*)".*?"(?P=hashes)|b?"(?:\\.|[^"\\])*"|b?'(?:\\[^\n]{1,10}?|[^'\\])'""", re.DOTALL
)
# Also `all(test, unix)`: tests for one system only.
TEST_ONLY = re.compile(r"#\[cfg\((?:test|all\(test,[^\]]*\))\)\]\s*(?:#\[[^\]]*\]\s*)*")
FILE_MODULE = re.compile(r"(?:pub(?:\([^)]*\))?\s+)?mod\s+(\w+)\s*;")
USE = re.compile(r"\b(?:pub(?:\([^)]*\))?\s+)?use\s+([^;]+);")
ITEM = re.compile(r"\b(?:fn|struct|enum|union|trait|type|const|static|macro_rules!)\s+(\w+)")
PATH = re.compile(r"(?<![\w:])(?:r#)?\w+(?:\s*::\s*\w+)+")

Names = tuple[str, ...]


def end_of_item(code: str, start: int) -> int:
    """Returns the end of the item at `start`: behind its semicolon or its closing brace."""
    depth = 0
    for index in range(start, len(code)):
        character = code[index]
        if character in "{([":
            depth += 1
        elif character in "})]":
            depth -= 1
            if depth == 0 and character == "}":
                return index + 1
        elif character == ";" and depth == 0:
            return index + 1
    return len(code)


def code_of(file: Path) -> str:
    """Returns the code without comments, strings and tests."""
    code = NOT_CODE.sub(" ", file.read_text(encoding="utf-8"))
    while found := TEST_ONLY.search(code):
        code = code[: found.start()] + code[end_of_item(code, found.end()) :]
    return code


def leaves(tree: str) -> list[tuple[Names, str]]:
    """Returns the paths of a use tree, each with the name that it gets; `*` for a glob."""
    tree = tree.strip()
    if "{" in tree:
        head, _, rest = tree.partition("{")
        prefix = tuple(name for name in re.split(r"\s*::\s*", head.strip()) if name)
        found, depth, part = [], 0, ""
        for character in rest[: rest.rindex("}")] + ",":
            if character == "," and depth == 0:
                if part.strip():
                    found += [(prefix + path, name) for path, name in leaves(part)]
                part = ""
                continue
            depth += {"{": 1, "}": -1}.get(character, 0)
            part += character
        return found
    path, _, alias = tree.partition(" as ")
    names = tuple(name for name in re.split(r"\s*::\s*", path.strip()) if name)
    return [(names, alias.strip() or names[-1])]


def imports(tree: str) -> list[tuple[Names, str]]:
    """The same, with `a::{self}` as the `a` that it is."""
    plain = []
    for path, name in leaves(tree):
        if path[-1] == "self" and len(path) > 1:
            path, name = path[:-1], path[-2] if name == "self" else name
        plain.append((path, name))
    return plain


class Module:
    """A module in a file of its own."""

    def __init__(self, path: Names, file: Path) -> None:
        self.path, self.file = path, file
        self.code = code_of(file)
        self.uses = [leaf for tree in USE.findall(self.code) for leaf in imports(tree)]
        self.names = {name: path for path, name in self.uses if name not in ("*", "_")}
        self.globs = [path[:-1] for path, name in self.uses if name == "*"]
        self.items = set(ITEM.findall(self.code))

    def children(self) -> list[tuple[str, Path]]:
        """Returns the modules that this one declares, with their files."""
        is_folder = self.file.name in ("mod.rs", "lib.rs")
        folder = self.file.parent if is_folder else self.file.with_suffix("")
        found = []
        for name in FILE_MODULE.findall(self.code):
            files = (folder / f"{name}.rs", folder / name / "mod.rs")
            found += [(name, file) for file in files if file.exists()]
        return found


class Crate:
    """The modules of a crate by their paths."""

    def __init__(self, root: Path) -> None:
        self.modules: dict[Names, Module] = {}
        waiting = [((), root)]
        while waiting:
            path, file = waiting.pop()
            self.modules[path] = module = Module(path, file)
            waiting += [((*path, name), file) for name, file in module.children()]

    def resolve(self, at: Names, names: Names, depth: int = 0) -> Optional[tuple[Names, bool]]:
        """Returns the module that defines what `names` means in the module `at`, and whether it is the module itself. None
        for another crate, or for a name without a module."""
        if depth > 20:
            return None
        first, *rest = names
        if first == "crate":
            return self.walk((), tuple(rest), depth)
        if first == "self":
            return self.walk(at, tuple(rest), depth)
        if first == "super":
            if rest and rest[0] == "super":
                return self.resolve(at[:-1], tuple(rest), depth)
            return self.walk(at[:-1], tuple(rest), depth)
        if (*at, first) in self.modules or first in self.modules[at].names:
            return self.walk(at, names, depth)
        return None

    def walk(self, at: Names, names: Names, depth: int) -> Optional[tuple[Names, bool]]:
        """Follows `names` from the module `at` on, through imports and re-exports."""
        for index, name in enumerate(names):
            module = self.modules[at]
            if (*at, name) in self.modules:
                at = (*at, name)
                continue
            target = module.names.get(name)
            if target and target != names[index:] and name not in module.items:
                return self.resolve(at, target + names[index + 1 :], depth + 1)
            if name not in module.items:
                for glob in module.globs:
                    inside = self.resolve(at, (*glob, name), depth + 1) if glob else None
                    if inside and name in self.modules[inside[0]].items:
                        return inside
            return at, False
        return at, True

    def edges(self) -> dict[Names, dict[Names, str]]:
        """Returns for each module the modules that it names, with one path as an example."""
        edges: dict[Names, dict[Names, str]] = {}
        for at, module in self.modules.items():
            found = edges.setdefault(at, {})
            outside = USE.sub(" ", module.code)
            paths = [path for path, _ in module.uses]
            paths += [tuple(re.split(r"\s*::\s*", path)) for path in PATH.findall(outside)]
            for path in paths:
                target = self.resolve(at, tuple(name for name in path if name != "*"))
                if target and target[0] != at and (not target[1] or path[-1] == "*"):
                    found.setdefault(target[0], "::".join(path))
        return edges


def groups(edges: dict[Names, dict[Names, str]]) -> list[list[Names]]:
    """Returns the groups of modules that depend on each other (Tarjan's strongly connected components)."""
    index: dict[Names, int] = {}
    low: dict[Names, int] = {}
    stack: list[Names] = []
    found = []

    def visit(node: Names) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for target in edges[node]:
            if target not in index:
                visit(target)
                low[node] = min(low[node], low[target])
            elif target in stack:
                low[node] = min(low[node], index[target])
        if low[node] == index[node]:
            group = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(group) > 1:
                found.append(sorted(group))

    for node in edges:
        if node not in index:
            visit(node)
    return found


def main() -> int:
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent.parent
    sys.setrecursionlimit(10_000)
    status = 0
    for name, folder in CRATES.items():
        crate = Crate(root / folder / "lib.rs")
        edges = crate.edges()
        cycles = groups(edges)
        print(f"{name}: {len(crate.modules)} modules, {len(cycles)} import cycles")
        for group in cycles:
            status = 1
            print(f"  {len(group)} modules:")
            for module in group:
                for target, path in sorted(edges[module].items()):
                    if target in group:
                        print(f"    {'::'.join(module) or 'lib'} -> {'::'.join(target) or 'lib'} ({path})")
    return status


if __name__ == "__main__":
    sys.exit(main())
