#!/usr/bin/env python3
"""Tests of import_cycles.py: crates of a few lines, with and without a cycle. Run this file."""

import tempfile
import unittest
from pathlib import Path

import import_cycles


def cycles(files: dict[str, str]) -> list[list[str]]:
    """Returns the cycles of a crate with these files."""
    with tempfile.TemporaryDirectory() as folder:
        for name, text in files.items():
            file = Path(folder, name)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        edges = import_cycles.Crate(Path(folder, "lib.rs")).edges()
    return sorted(["::".join(module) for module in group] for group in import_cycles.groups(edges))


class Cycles(unittest.TestCase):
    def test_two_modules_that_import_each_other(self):
        files = {
            "lib.rs": "mod a; mod b;",
            "a.rs": "use crate::b::B; pub struct A;",
            "b.rs": "use super::a::A; pub struct B;",
        }
        self.assertEqual(cycles(files), [["a", "b"]])

    def test_one_direction_is_no_cycle(self):
        files = {"lib.rs": "mod a; mod b;", "a.rs": "use crate::b::B; pub struct A;", "b.rs": "pub struct B;"}
        self.assertEqual(cycles(files), [])

    def test_a_path_without_use_counts(self):
        files = {"lib.rs": "mod a; mod b;", "a.rs": "pub fn a() { crate::b::b() }", "b.rs": "pub fn b() { super::a::a() }"}
        self.assertEqual(cycles(files), [["a", "b"]])

    def test_a_path_through_an_imported_module_counts(self):
        files = {
            "lib.rs": "mod a; mod b;",
            "a.rs": "use crate::b; fn a() { b::b() }",
            "b.rs": "use crate::a as c; fn b() { c::a() }",
        }
        self.assertEqual(cycles(files), [["a", "b"]])

    def test_a_cycle_of_three(self):
        files = {
            "lib.rs": "mod a; mod b; mod c;",
            "a.rs": "use crate::{b::{B, self}}; pub struct A;",
            "b.rs": "use crate::c::C; pub struct B;",
            "c.rs": "use crate::a::*; pub struct C;",
        }
        self.assertEqual(cycles(files), [["a", "b", "c"]])

    def test_a_re_export_counts_for_the_module_that_defines_the_item(self):
        files = {
            "lib.rs": "mod m;",
            "m/mod.rs": "mod a; mod b; pub use a::A; pub use b::b;",
            "m/a.rs": "pub struct A;",
            "m/b.rs": "use super::A; pub fn b() -> A { A }",
        }
        self.assertEqual(cycles(files), [])

    def test_a_glob_re_export_counts_for_the_module_that_defines_the_item(self):
        files = {
            "lib.rs": "mod m;",
            "m/mod.rs": "mod a; mod b; pub use a::*; pub use b::*;",
            "m/a.rs": "use super::b; pub struct A;",
            "m/b.rs": "use super::A; pub fn b() -> A { A }",
        }
        self.assertEqual(cycles(files), [])
        files["m/a.rs"] += "pub fn a() { b() }"
        files["m/a.rs"] = files["m/a.rs"].replace("super::b;", "super::b::b;")
        self.assertEqual(cycles(files), [["m::a", "m::b"]])

    def test_a_child_that_imports_an_item_of_its_parent(self):
        files = {
            "lib.rs": "mod m;",
            "m.rs": "mod a; pub use a::a; pub struct M;",
            "m/a.rs": "pub fn a() -> super::M { super::M }",
        }
        self.assertEqual(cycles(files), [["m", "m::a"]])

    def test_tests_comments_and_strings_do_not_count(self):
        files = {
            "lib.rs": "mod a; mod b;",
            "a.rs": "use crate::b::B; pub struct A;",
            "b.rs": """
                //! See `crate::a::A`.
                /* use crate::a::A; */
                pub struct B;
                const TEXT: (&str, &str, char) = ("use crate::a::A;", r#"crate::a::A"#, '"');
                #[cfg(test)]
                #[allow(unused)]
                mod tests { use crate::a::A; fn a() { let a = A {}; } }
                pub fn b<'a>(b: &'a B) -> &'a B { b }
            """,
        }
        self.assertEqual(cycles(files), [])
        files["b.rs"] += "#[cfg(all(test, unix))] mod unix_tests { use crate::a::A; }"
        self.assertEqual(cycles(files), [])
        files["b.rs"] += "pub fn a() { crate::a::a() }"
        self.assertEqual(cycles(files), [["a", "b"]])


if __name__ == "__main__":
    unittest.main()
