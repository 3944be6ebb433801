# SPDX-License-Identifier: MIT
"""What a distribution installs: `make install` into a scratch folder, from the build folder that VELOX_SIDECAR is in.
A test whose tool is not there skips, and names it."""

import os
import re
import shutil
import subprocess
import sys

import pytest

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(TOP, "tests", "daemon"))

BUILD = os.path.dirname(os.environ.get("VELOX_SIDECAR", os.path.join(os.getcwd(), "velox-sidecar")))


def tool(name):
    path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path


def run(*command, **named):
    """Its output, both kinds together; a failure shows it."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True,
                          **named)
    assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}"
    return done.stdout


class Installed:
    def __init__(self, folder):
        self.folder = folder
        with open(f"{BUILD}/Makefile") as makefile:
            self.variables = dict(re.findall(r"^([A-Za-z_]+) = (.*)$", makefile.read(), re.M))

    def make(self, target):
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
        return run("make", "-s", "-C", BUILD, target, f"DESTDIR={self.folder}", env=clean)

    def where(self, variable):
        """The value of a variable of the Makefile, without DESTDIR."""
        value = self.variables[variable]
        while "$" in value:
            value = re.sub(r"\$[{(](\w+)[})]", lambda name: self.variables[name.group(1)], value)
        return value

    def path(self, variable, name=""):
        return os.path.join(self.folder + self.where(variable), name)

    def files(self):
        return {os.path.join(folder, name)[len(self.folder):]
                for folder, _, names in os.walk(self.folder) for name in names}


@pytest.fixture(scope="session")
def installed(tmp_path_factory):
    if not os.path.exists(f"{BUILD}/Makefile"):
        pytest.skip(f"{BUILD} is no build folder")
    tool("make")
    installed = Installed(str(tmp_path_factory.mktemp("installed")))
    installed.make("install")
    return installed
