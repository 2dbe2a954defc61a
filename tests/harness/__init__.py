"""What the tests share: servers, models, raw connections, processes."""
