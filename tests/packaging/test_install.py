# SPDX-License-Identifier: MIT
"""make install and make uninstall."""

import os
import re
import stat

from conftest import TOP, Installed, run


def test_everything_is_where_a_distribution_wants_it(installed):
    files = installed.files()
    program = installed.where("sbindir") + "/velox-sidecar"
    docs = installed.where("docdir")
    expected = {
        program: 0o755,
        installed.where("sysconfdir") + "/velox-sidecar/velox-sidecar.ini": 0o644,
        installed.where("sysconfdir") + "/logrotate.d/velox-sidecar": 0o644,
        installed.where("mandir") + "/man8/velox-sidecar.8": 0o644,
        installed.where("mandir") + "/man5/velox-sidecar.ini.5": 0o644,
        installed.where("systemdsystemunitdir") + "/velox-sidecar.service": 0o644,
        installed.where("systemdsystemunitdir") + "/velox-sidecar.socket": 0o644,
        installed.where("prefix") + "/lib/sysusers.d/velox-sidecar.conf": 0o644,
        installed.where("prefix") + "/lib/tmpfiles.d/velox-sidecar.conf": 0o644,
        docs + "/README.md": 0o644,
    }
    for path, mode in expected.items():
        assert path in files, path
        assert stat.S_IMODE(os.stat(installed.folder + path).st_mode) == mode, path
    assert not [path for path in files - set(expected) if not path.startswith(docs + "/")]
    assert "velox-sidecar" in run(installed.folder + program, "-v")


def test_every_sample_is_installed_and_mentioned(installed):
    with open(f"{TOP}/config/examples/README.md") as readme, open(f"{TOP}/README.md") as top_readme:
        texts = readme.read() + top_readme.read()
    names = [name for folder in ("config", "config/examples") for name in os.listdir(f"{TOP}/{folder}")
             if os.path.isfile(f"{TOP}/{folder}/{name}")]
    assert len(names) > 10
    for name in names:
        assert os.path.exists(installed.path("docdir", f"examples/{name}")), name
        assert name == "README.md" or name in texts, f"{name}: no word about it in the documentation"


def test_no_placeholder_is_left(installed):
    for path in installed.files():
        with open(installed.folder + path, errors="replace") as file:
            if not path.endswith("sbin/velox-sidecar"):
                assert not re.search(r"@[a-z]+dir@|\$\{(exec_)?prefix\}", file.read()), path


def test_a_changed_configuration_survives(tmp_path, installed):
    again = Installed(str(tmp_path))
    again.make("install")
    ini = again.path("sysconfdir", "velox-sidecar/velox-sidecar.ini")
    with open(ini, "a") as file:
        file.write("; mine\n")
    with open(ini) as file:
        mine = file.read()
    assert "keeping" in again.make("install")
    with open(ini) as file:
        assert file.read() == mine
    again.make("uninstall")
    assert again.files() == {ini[len(again.folder):]}


def test_uninstall_leaves_no_file(tmp_path, installed):
    again = Installed(str(tmp_path))
    again.make("install")
    again.make("uninstall")
    assert again.files() == set()
