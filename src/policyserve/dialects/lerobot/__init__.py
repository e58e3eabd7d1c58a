"""What LeRobot's RobotClient says: gRPC messages with pickles in them, of which none is ever unpickled. Pure."""
