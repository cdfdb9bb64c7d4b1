#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Checks every #include of runtime/, models/, partitioner/ and tools/ against includes.table.

Usage: tools/check/includes.py [ROOT] [--table FILE] [--loose] [--torch-free]
Prints every finding as file:line, and ends with 1 when there is one. --torch-free prints the folders that see no torch
instead, one a line: for them there are more checks. Needs only Python's standard library.
"""
import argparse
import pathlib
import re
import sys

TREES = ("runtime", "models", "partitioner", "tools")
SUFFIXES = {".hpp", ".cpp", ".h", ".cc", ".hh", ".ipp", ".inl", ".cu", ".cuh"}
INCLUDE = re.compile(r'^[ \t]*#[ \t]*(?:include|import)[ \t]*(?:"([^"]+)"|<([^>]+)>)', re.MULTILINE)
BLOCK_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)


class TableError(Exception):
    pass


class Table:
    """The allowed edges: folders (name -> set of folders and headers), externals (name -> (prefixes, folders)), apart pairs."""

    def __init__(self, text):
        self.folders, self.externals, self.apart = {}, {}, []
        for number, line in enumerate(text.splitlines(), 1):
            line = line.split("#", 1)[0].strip()
            if not line:
                continue
            external = re.fullmatch(r"external\s+(\w+)\s*:([^=]*)=(.*)", line)
            apart = re.fullmatch(r"apart\s+(\w+)\s+(\w+)", line)
            folder = re.fullmatch(r"([\w./-]+)\s*:(.*)", line)
            if external:
                self.externals[external[1]] = (tuple(external[2].split()), set(external[3].split()))
            elif apart:
                self.apart.append((apart[1], apart[2]))
            elif folder:
                if folder[1] in self.folders:
                    raise TableError(f"line {number}: folder {folder[1]} is there twice")
                self.folders[folder[1]] = set(folder[2].split())
            else:
                raise TableError(f"line {number}: expected 'folder: ...', 'external name: ... = ...' or 'apart a b': {line}")
        self._check_names()
        self._check_cycles()

    def folder_of(self, path):
        """The longest folder of the table that holds this path, or None."""
        holders = [f for f in self.folders if path.startswith(f + "/")]
        return max(holders, key=len, default=None)

    def sees(self, folder, external):
        """May a file of this folder include the external, itself or through the folders that it may include?"""
        allowed = self.folders[folder]
        if folder in self.externals[external][1]:
            return True
        targets = {name if name in self.folders else self.folder_of(name) for name in allowed}
        return any(self.sees(target, external) for target in targets - {folder})

    def _check_names(self):
        for folder, allowed in self.folders.items():
            for name in allowed:
                if name not in self.folders and self.folder_of(name) is None:
                    raise TableError(f"{folder} may include {name}, which is in no folder of the table")
        for pair in self.apart:
            for name in pair:
                if name not in self.externals:
                    raise TableError(f"'apart' names {name}, which is no external of the table")

    def _check_cycles(self):
        done, path = set(), []

        def visit(folder):
            if folder in path:
                raise TableError("cycle: " + " -> ".join(path[path.index(folder):] + [folder]))
            if folder in done:
                return
            path.append(folder)
            for name in sorted(self.folders[folder]):
                target = name if name in self.folders else self.folder_of(name)
                if target != folder:
                    visit(target)
            path.pop()
            done.add(folder)

        for folder in self.folders:
            visit(folder)


def includes_of(text):
    """(line, name, quoted) of every #include that is not in a block comment."""
    text = BLOCK_COMMENT.sub(lambda match: "\n" * match[0].count("\n"), text)
    return [(text.count("\n", 0, m.start(1 if m[1] else 2)) + 1, m[1] or m[2], bool(m[1])) for m in INCLUDE.finditer(text)]


def sources(root):
    for tree in TREES:
        for path in sorted((root / tree).rglob("*")):
            if path.suffix in SUFFIXES and path.is_file():
                yield path.relative_to(root).as_posix()


class Checker:
    def __init__(self, root, table):
        self.root, self.table, self.findings = root, table, []
        self.ours, self.seen = {}, {}  # file -> our files it includes; file -> {external: line}
        self.used = set()  # (folder, entry of its row) that some file needs

    def run(self):
        files = list(sources(self.root))
        for path in files:
            self._check_file(path)
        for path in files:
            self._check_apart(path)
        return len(files)

    def _report(self, path, line, message):
        self.findings.append((path, line, message))

    def _check_file(self, path):
        folder = self.table.folder_of(path)
        self.ours[path], self.seen[path] = {}, {}
        if folder is None:
            self._report(path, 1, "this folder is not in the table; give it a row that says what it may include")
            return
        text = (self.root / path).read_text(encoding="utf-8", errors="replace")
        for line, name, quoted in includes_of(text):
            target = self._resolve(path, name)
            if target:
                self._check_edge(path, folder, line, target)
            elif quoted and name.split("/")[0] in TREES + ("tests",):
                self._report(path, line, f'"{name}" does not exist')
            else:
                self._check_external(path, line, name)

    def _resolve(self, path, name):
        if (self.root / name).is_file() and name.split("/")[0] in TREES + ("tests",):
            return name
        beside = (self.root / path).parent / name
        if beside.is_file():
            return beside.resolve().relative_to(self.root.resolve()).as_posix()
        return None

    def _check_edge(self, path, folder, line, target):
        self.ours[path].setdefault(target, line)
        other = self.table.folder_of(target)
        allowed = self.table.folders[folder]
        if other == folder:
            return
        needed = {name for name in (target, other) if name in allowed}
        self.used.update((folder, name) for name in needed)
        if needed:
            return
        may = ", ".join(sorted(allowed)) or "nothing else of ours"
        self._report(path, line, f"{folder} may not include {target} (it may include: {may})")

    def _check_external(self, path, line, name):
        for external, (prefixes, folders) in self.table.externals.items():
            if any(name == p or (p.endswith("/") and name.startswith(p)) for p in prefixes):
                self.seen[path].setdefault(external, line)
                if not any(path.startswith(folder + "/") for folder in folders):
                    self._report(path, line, f"<{name}> is {external}, which only {', '.join(sorted(folders))} may include")

    def check_tight(self):
        """Reports what the table allows and no file needs. After run()."""
        for folder, allowed in self.table.folders.items():
            for name in sorted(allowed):
                if (folder, name) not in self.used:
                    self._report(folder, 1, f"the table lets it include {name}, which no file of it does; take it out")
        for external, (_, folders) in self.table.externals.items():
            users = {path for path, seen in self.seen.items() if external in seen}
            for folder in sorted(folders):
                if not any(path.startswith(folder + "/") for path in users):
                    self._report(folder, 1, f"the table lets it include {external}, which no file of it does; take it out")

    def _check_apart(self, path):
        """Follows our headers from this file; reports where it comes to see two externals that exclude each other."""
        via, queue = {path: None}, [path]
        first = {}  # external -> our file that includes it
        while queue:
            current = queue.pop(0)
            for external in self.seen.get(current, {}):
                first.setdefault(external, current)
            for target in self.ours.get(current, {}):
                if target not in via:
                    via[target] = current
                    queue.append(target)
        for a, b in self.table.apart:
            if a in first and b in first:
                ways = " and ".join(f"{name} through {self._way(via, first[name])}" for name in (a, b))
                self._report(path, 1, f"sees {a} and {b}, which do not go together: {ways}")

    @staticmethod
    def _way(via, path):
        way = [path]
        while via[way[-1]]:
            way.append(via[way[-1]])
        return " > ".join(reversed(way))


def main(arguments=None):
    here = pathlib.Path(__file__).resolve()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", nargs="?", type=pathlib.Path, default=here.parents[2])
    parser.add_argument("--table", type=pathlib.Path, default=here.with_name("includes.table"))
    parser.add_argument("--loose", action="store_true", help="say nothing of what the table allows and no file needs")
    parser.add_argument("--torch-free", action="store_true", help="print the folders that see no torch")
    options = parser.parse_args(arguments)
    try:
        table = Table(options.table.read_text())
    except TableError as error:
        print(f"{options.table}: {error}", file=sys.stderr)
        return 1
    if options.torch_free:
        print(*(f for f in table.folders if (options.root / f).is_dir() and not table.sees(f, "torch")), sep="\n")
        return 0
    checker = Checker(options.root, table)
    count = checker.run()
    if not options.loose:
        checker.check_tight()
    findings = sorted(checker.findings)
    for path, line, message in findings:
        print(f"{path}:{line}: {message}")
    if count == 0:
        print(f"includes: no sources under {options.root}", file=sys.stderr)
        return 1
    if findings:
        print(f"includes: {len(findings)} in {count} files; the edges are in {options.table.name}", file=sys.stderr)
        return 1
    print(f"includes: {count} files keep to {options.table.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
