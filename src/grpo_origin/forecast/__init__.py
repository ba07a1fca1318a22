"""What RL can learn from, before it is paid for: pass counts per prompt of anyone's model.

Knows counts only: neither the model nor the task. What training does after its first useful group
is forecast by a model that was fitted elsewhere (`analysis.outcome`).
"""
