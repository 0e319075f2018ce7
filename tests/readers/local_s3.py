"""The local S3 and Glue server on a free port, which its log names. One request at a time: moto looks whether an object is there and puts it in two steps,
between which another request must not come; Amazon's servers take both for one."""

from threading import Lock

from moto.moto_server.werkzeug_app import (
    DomainDispatcherApplication,
    MotoRequestHandler,
    create_backend_app,
)
from werkzeug.serving import run_simple

moto = DomainDispatcherApplication(create_backend_app)
moto.debug = True
alone = Lock()


def one_at_a_time(environ, start_response):
    with alone:
        return list(moto(environ, start_response))


run_simple("127.0.0.1", 0, one_at_a_time, threaded=True, request_handler=MotoRequestHandler)
