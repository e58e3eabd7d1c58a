"""Programs that torch saved: TorchScript, and what torch.export.save() wrote."""
