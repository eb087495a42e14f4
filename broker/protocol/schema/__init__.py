"""The Protobuf schema of the client protocol, and the code generated from it."""
