# SPDX-License-Identifier: MIT
"""The doctor beside real servers: nginx's own dump of its configuration, a real PHP-FPM."""
import subprocess

from stack import SOURCE, find_program, program_from


def doctor(stack, dump):
    done = subprocess.run([program_from("VELOX_SIDECAR", SOURCE / "velox-sidecar"), "doctor", "-c",
                           stack.directory / "velox-sidecar.ini", "--nginx", "-"],
                          input=dump, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout.splitlines()


def nginx_dump(stack):
    done = subprocess.run([find_program("nginx", "/usr/sbin/nginx"), "-T", "-p", stack.directory, "-c",
                           stack.directory / "nginx.conf"], capture_output=True, text=True, check=True)
    return done.stdout


def test_the_sample_configuration_is_healthy(stack):
    code, lines = doctor(stack, nginx_dump(stack))
    assert code == 0, lines
    assert any(line.startswith("ok    PHP-FPM at unix:") for line in lines), lines
    assert any(line.startswith("ok    Velox at http:") for line in lines), lines
    builds = [line for line in lines if "location = /build.php" in line]
    assert builds, lines
    # The sample's location that builds has the time that it needs, in each way that nginx may talk to us.
    assert all(line.startswith("ok ") for line in builds if "read_timeout" in line), builds
    assert not any("no location passes to us" in line for line in lines)


def test_a_location_without_the_timeout_is_told(stack):
    dump = nginx_dump(stack)
    assert "fastcgi_read_timeout 330s;" in dump
    code, lines = doctor(stack, dump.replace("fastcgi_read_timeout 330s;", ""))
    told = [line for line in lines if "location = /build.php" in line and "read_timeout" in line]
    assert code == 0 and told and all(line.startswith("warn ") and "60 s" in line for line in told), lines
