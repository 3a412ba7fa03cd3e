"""The settings in; exit code 0 out where the server that runs with them is ready, else 1 and a line that says why.

Standard library only, and no urllib: that one would ask a proxy named in the environment.
"""

import http.client
import os
import sys

host = os.environ.get("SEGSERVE_HOST", "127.0.0.1")  # to connect to 0.0.0.0 or :: is to connect to this machine
port = os.environ.get("SEGSERVE_PORT", "8000")
connection = http.client.HTTPConnection(host, int(port), timeout=4)
try:
    connection.request("GET", "/health/ready")
    answer = connection.getresponse()
    text = answer.read().decode()
except (OSError, http.client.HTTPException) as error:
    sys.exit(f"no answer from {host}:{port}: {error}")
if answer.status != http.HTTPStatus.OK:
    sys.exit(f"{answer.status} {text}")
