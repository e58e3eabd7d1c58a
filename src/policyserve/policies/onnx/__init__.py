"""ONNX models as policies: `roles` says what each input and output is, `opening` reads a file, `policy` answers."""
