"""Runs all cases against real nodes, and names every wrong answer. Usage: check.py BINARY"""

import sys
import traceback

import grpc
import limits
import node as nodes
import storage_pb2 as pb
import transport  # its cases
from answers import CASES

# RPCs that are still to be built: each must answer UNIMPLEMENTED, or be taken out of this list.
NOT_YET: set[str] = set()


def check_not_yet(node, rpc):
    method = pb.DESCRIPTOR.services_by_name["StorageNodeService"].methods_by_name[rpc]
    request = getattr(pb, method.input_type.name)()
    try:
        nodes.expect_refusal(nodes.refusal(node.stub, rpc, request), "UNIMPLEMENTED", "UNKNOWN")
    except AssertionError as wrong:
        raise AssertionError(f"{wrong}. If {rpc} is built now, take it out of NOT_YET in {__file__}") from None


def check_limit(node, rpc, request, fault):
    if fault is None:
        nodes.call(node.stub, rpc, request)
    else:
        nodes.expect_refusal(nodes.refusal(node.stub, rpc, request), "INVALID_ARGUMENT", "INVALID_REQUEST", fault)


def all_checks(node):
    """The name of each check, and what does it."""
    for rpc in sorted(NOT_YET):
        yield f"{rpc} is not built yet", lambda rpc=rpc: check_not_yet(node, rpc)
    for name, needs, run in CASES:
        if NOT_YET.isdisjoint(needs):
            yield name, lambda run=run: run(node)
    for rpc, what, request, fault in limits.cases():
        if rpc not in NOT_YET:
            yield f"{rpc}: {what}", lambda c=(rpc, request, fault): check_limit(node, *c)


def main():
    nodes.BINARY = sys.argv[1]
    right, wrong = 0, []
    with nodes.Node() as node:
        for name, check in all_checks(node):
            try:
                check()
                right += 1
            except Exception as error:
                at = traceback.extract_tb(error.__traceback__)[-1]
                detail = str(error) or at.line
                wrong.append(f"{name}: {type(error).__name__}: {detail} ({at.filename}:{at.lineno})")
                print(f"WRONG  {wrong[-1]}", flush=True)
    print(f"{right} answers are right, {len(wrong)} wrong; {len(NOT_YET)} RPCs are not built yet (grpcio {grpc.__version__})")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
