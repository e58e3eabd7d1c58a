"""`python -m wall_x.serving.launch_serving`."""

from policyserve.compat.wall_x import MODEL_CONFIGS, ModelConfig, launch_serving

__all__ = ["MODEL_CONFIGS", "ModelConfig", "main"]

main = launch_serving

if __name__ == "__main__":
    main()
