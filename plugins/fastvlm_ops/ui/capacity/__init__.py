"""Pages of capacity: what services need, pictures of forecasts, and how right those were."""
