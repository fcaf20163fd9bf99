//! The Container Runtime Interface (CRI v1, as of v0.37): protobuf contract and generated types.
