"""The Protobuf schemas of the client protocol and of control between nodes, and the code generated from them."""
