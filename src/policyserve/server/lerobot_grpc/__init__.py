"""A port for LeRobot's RobotClient, which speaks gRPC: `policyserve serve POLICY --lerobot PORT`."""
