"""A small inference service to drill, with replicas, a balancer, links to disturb and a pair of databases."""
