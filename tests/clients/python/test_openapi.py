"""The HTTP API beside its own description, as schemathesis asks: what it generates is answered as /openapi.json says, and
nothing makes the daemon fail. `python test_openapi.py PROGRAM`."""

import subprocess
import sys
import unittest

import daemon

# A watch has no end, and what figures look like is tested by their own parsers.
PATHS = "^/(v1/(events|topics|log|principal)|healthz|readyz)"
CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
)


class Described(unittest.TestCase):
    def test_answers_are_as_the_document_says(self):
        served = daemon.Daemon()
        self.addCleanup(served.close)
        asked = subprocess.run(
            [sys.executable, "-m", "schemathesis.cli", "run", f"http://{served.address}/openapi.json",
             "--include-path-regex", PATHS, "--checks", CHECKS, "--max-examples", "25", "--seed", "1"],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=600,
        )
        self.assertEqual(asked.returncode, 0, asked.stdout)
        # That it asked at all.
        self.assertRegex(asked.stdout, r"[1-9][0-9]+ generated, [1-9][0-9]+ passed")


if __name__ == "__main__":
    unittest.main()
