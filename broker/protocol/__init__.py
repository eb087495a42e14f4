from broker.protocol import codes
from broker.protocol.codec import *
from broker.protocol.deflate import *
from broker.protocol.handshake import *
from broker.protocol.json_codec import *
from broker.protocol.messages import *
from broker.protocol.websocket import *
JSON = JsonCodec()
PROTOBUF = JSON
class fossil:
    create = create_text = staticmethod(lambda a, b: None)
class Filter: ...
def compile_filter(node): raise ValueError
