"""The demo service: an inference service that drills break on purpose. Two replicas behind a balancer, TCP
links between its parts, a pair of databases, and a supervisor of them all.
"""
