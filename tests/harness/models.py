"""GGUF files for a test, written by the build's own scripted-model."""

import hashlib
import subprocess


class Models:
    """A folder of models; the same options give the same file."""

    def __init__(self, program, folder):
        self.program = program
        self.folder = folder

    def make(self, **options):
        """make(answer="Hi", slow_load=500, loop=True, ...) -> path"""
        args = []
        for name, value in sorted(options.items()):
            flag = "--" + name.replace("_", "-")
            args += [flag] if value is True else [flag, str(value)]
        name = hashlib.sha256(repr(args).encode()).hexdigest()[:16]
        path = self.folder / f"{name}.gguf"
        if not path.exists():
            subprocess.run([self.program, *args, path], check=True)
        return path
