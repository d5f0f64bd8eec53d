"""Batch norms of a network that is not trained, folded into the convolutions before them."""

from __future__ import annotations

from torch import nn
from torch.fx import GraphModule
from torch.nn.utils.fusion import fuse_conv_bn_eval

__all__ = ["fold_batch_norms"]


def fold_batch_norms(body: nn.Module) -> None:
    """Fold every batch norm of a traced network, in evaluation mode, into the convolution before it, unless
    something else takes that one's output: what comes out of both is the same but for rounding. What is no
    `GraphModule` stays as it is.
    """
    if not isinstance(body, GraphModule):
        return
    for node in list(body.graph.nodes):
        before = node.args[0] if node.op == "call_module" else None
        if before is None or getattr(before, "op", "") != "call_module" or len(before.users) > 1:
            continue
        norm, convolution = body.get_submodule(node.target), body.get_submodule(str(before.target))
        if isinstance(norm, nn.BatchNorm2d) and isinstance(convolution, nn.Conv2d):
            body.set_submodule(str(before.target), fuse_conv_bn_eval(convolution, norm))
            node.replace_all_uses_with(before)
            body.graph.erase_node(node)
    body.delete_all_unused_submodules()
    body.recompile()
