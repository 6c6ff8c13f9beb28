"""Bugs that the programs do not have, each as the edit that makes it.

A bug is refuted by the property that is meant to: among them the published ones (docs/traps.md; 4
is a learner's, and stands for what an acceptor can do wrong alike).
"""

from __future__ import annotations

from typing import NamedTuple


class Bug(NamedTuple):
    """An edit of a program that must not pass."""

    title: str
    property: str
    program: str
    edits: tuple[tuple[str, str, str], ...]
    """File, what stands there once, and what stands there instead."""


def _acceptor(title: str, property: str, old: str, new: str, file: str = "acceptor.p4") -> Bug:
    return Bug(title, property, "acceptor", ((file, old, new),))


def _coordinator(title: str, property: str, old: str, new: str) -> Bug:
    return Bug(title, property, "coordinator", (("coordinator.p4", old, new),))


_STALE_VOTE = """} else if (hdr.paxos.round < floor_now || hdr.paxos.round < round) {
            meta.outcome = OUTCOME_STALE_ROUND;
"""
_STALE_PROMISE = """        if (hdr.paxos.round < round) {
            meta.outcome = OUTCOME_STALE_ROUND;
"""
_STALE_LOG = """} else if (hdr.paxos.round < floor_now) {
            meta.outcome = OUTCOME_STALE_ROUND;
        """
_ROUND_ZERO = """if (hdr.paxos.round == NO_ROUND) {
            meta.outcome = OUTCOME_ROUND_ZERO;
        } else if (%s"""
_RAISE_HIGHEST = """                if (highest_now < low_now - 1) {
                    highest_now = low_now - 1;
                }
"""
_CAST = """        round = hdr.paxos.round;
        vround = hdr.paxos.round;
        length = hdr.paxos.length;
        value = meta.value;
        changed = 1;
        promise();
"""
_RAISE_NEXT = "        if (next_now < low_now) {\n            next_now = low_now;\n        }\n"
_VOTED_HIGHEST = "        if (highest_now < first) {\n            highest_now = first;\n        }\n"
_EMPTIED = """            instance = first;
            round = NO_ROUND;
            vround = NO_ROUND;
            length = 0;
            value = 0;
"""

BUGS = (
    # Silence
    _acceptor(
        "trap 1: a stale PHASE2A is answered", "stale-round",
        _STALE_VOTE, _STALE_VOTE + "            meta.verdict = VERDICT_TELL;\n",
    ),
    Bug(
        "trap 1: what nobody decides on leaves by port 0", "fate", "acceptor",
        (
            ("acceptor.p4", "        mark_to_drop(standard_metadata);\n", ""),
            ("sending.p4", "    action silence() {\n        mark_to_drop(standard_metadata);\n",
             "    action silence() {\n"),
        ),
    ),
    _acceptor(
        "trap 6: a refused PHASE1A of one instance is answered", "stale-round",
        _STALE_PROMISE,
        _STALE_PROMISE + "            sign(PHASE1B);\n            tell_slot();\n"
        "            meta.verdict = VERDICT_REPLY;\n",
    ),
    _acceptor(
        "trap 6: a refused PHASE1A of the log is answered", "stale-round",
        "    action phase1a() {\n",
        "    action phase1a() {\n        if (hdr.paxos.round < floor_now) { summary(0); }\n",
    ),
    _acceptor(
        "trap 3: a vote in round 0", "round-zero",
        _ROUND_ZERO % "in_window == 0) {", "if (in_window == 0) {",
    ),
    _acceptor(
        "trap 3: a promise of round 0", "round-zero",
        _ROUND_ZERO % "well_formed == 0) {", "if (well_formed == 0) {",
    ),
    _acceptor(
        "a HEARTBEAT is answered", "answers-only",
        "        meta.outcome = OUTCOME_HEARTBEATS;\n",
        "        meta.outcome = OUTCOME_HEARTBEATS;\n        meta.verdict = VERDICT_REPLY;\n",
    ),
    # The window
    _acceptor(
        "trap 2: an instance above the window is an index", "window",
        "first >= low_now && first - low_now < WINDOW", "first >= low_now",
    ),
    _acceptor(
        "trap 2: an instance below low is an index", "window",
        "first >= low_now && first - low_now < WINDOW",
        "first >= low_now && first - low_now < WINDOW || hdr.paxos.message_type == PHASE2A",
    ),
    _acceptor(
        "trap 2: a register smaller than the ring", "index",
        "(SLOTS) slot_vround;", "(SLOTS - 1) slot_vround;",
    ),
    _acceptor(
        "PHASE2A outside the window is voted for, in no slot", "window",
        "} else if (in_window == 0) {\n            meta.outcome = OUTCOME_OUT_OF_WINDOW;\n        ",
        "",
    ),
    _acceptor(
        "all groups share the first one's slots", "window",
        "slot = meta.group ++", "slot = (meta.group & 0) ++",
    ),
    _acceptor(
        "a slot is chosen by the wrong bits", "slot-holds-its-own",
        "first[SLOT_BITS - 1:0]", "first[SLOT_BITS:1]",
    ),
    # Votes
    _acceptor(
        "trap 5: a vote is overwritten in its round", "vote-kept",
        "if (vround == hdr.paxos.round) {",
        "if (vround == hdr.paxos.round && value == meta.value) {",
    ),
    _acceptor(
        "trap 5: two votes of one round, one after the other", "one-vote-a-round",
        "if (vround == hdr.paxos.round) {",
        "if (vround == hdr.paxos.round && value == meta.value) {",
    ),
    _acceptor(
        "trap 4: the round changes without the vote's round", "vote-proposed",
        _CAST, _CAST.replace("        vround = hdr.paxos.round;\n", ""),
    ),
    _acceptor(
        "a vote below the floor", "vote-promised",
        "hdr.paxos.round < floor_now || hdr.paxos.round < round", "hdr.paxos.round < round",
    ),
    _acceptor(
        "a vote below the slot's promise", "promise-kept",
        "hdr.paxos.round < floor_now || hdr.paxos.round < round", "hdr.paxos.round < floor_now",
    ),
    _acceptor(
        "a vote that promises nothing", "vote-below-promise",
        _CAST, _CAST.replace("        round = hdr.paxos.round;\n", ""),
    ),
    _acceptor(
        "a vote that is told and not stored", "vote-stored",
        _CAST, _CAST.replace("        changed = 1;\n", ""),
    ),
    _acceptor(
        "a vote without its value", "vote-proposed",
        _CAST, _CAST.replace("        value = meta.value;\n", ""),
    ),
    _acceptor(
        "a vote without its length", "vote-proposed",
        _CAST, _CAST.replace("        length = hdr.paxos.length;\n", ""),
    ),
    _acceptor(
        "the register of vround is not written", "vote-stored",
        "        slot_vround.write((bit<32>) slot, vround);\n", "",
    ),
    _acceptor(
        "PHASE2B tells the promise for the vote", "vote-stored",
        "        tell_slot();\n        hdr.paxos.round = vround;\n",
        "        tell_slot();\n        hdr.paxos.round = round;\n",
    ),
    _acceptor(
        "LEARN tells votes that there are not", "vote-stored",
        " || vround == NO_ROUND) {", ") {",
    ),
    _acceptor(
        "votes of one round are silence the second time", "answers",
        "            vote();\n            meta.verdict = VERDICT_TELL;\n",
        "            vote();\n            if (changed == 1) { meta.verdict = VERDICT_TELL; }\n",
    ),
    _acceptor(
        "a value longer than what a slot has room for", "value-fits",
        "} else if (meta.too_long == 1 || hdr.paxos.length > VALUE_BYTES) {\n"
        "            meta.outcome = OUTCOME_VALUE_TOO_LONG;\n        ",
        "",
    ),
    _acceptor(
        "a HEARTBEAT empties a slot", "others-unchanged",
        "        meta.outcome = OUTCOME_HEARTBEATS;\n",
        "        meta.outcome = OUTCOME_HEARTBEATS;\n        changed = 1;\n",
    ),
    # Promises
    _acceptor(
        "a malformed PHASE1A is a promise", "promise-moves",
        "if (well_formed == 0) {\n            meta.outcome = OUTCOME_MALFORMED;\n        "
        "} else if (hdr.paxos.round < floor_now) {",
        "if (hdr.paxos.round < floor_now) {",
    ),
    _acceptor(
        "a slot's promise goes down", "rounds-grow",
        _STALE_PROMISE, _STALE_PROMISE.replace("< round", "< floor_now"),
    ),
    _acceptor(
        "a promise of one instance above highest_round", "highest-round",
        "            promise();\n            sign(PHASE1B);\n", "            sign(PHASE1B);\n",
    ),
    _acceptor(
        "a slot that is taken over keeps the vote's round", "report-exact",
        _EMPTIED, _EMPTIED.replace("            vround = NO_ROUND;\n", ""),
    ),
    _acceptor(
        "a slot that is taken over keeps its promise", "answers",
        _EMPTIED, _EMPTIED.replace("            round = NO_ROUND;\n", ""),
    ),
    _acceptor(
        "a slot that is taken over keeps its value", "report-exact",
        _EMPTIED, _EMPTIED.replace("            value = 0;\n", ""),
    ),
    _acceptor(
        "a slot answers for whatever instance it holds", "report-exact",
        "if (instance != first) {", "if (instance == 0) {",
    ),
    _acceptor(
        "trap 3: PHASE1B tells the promise for the vote's round", "report-exact",
        "        hdr.paxos.vround = vround;\n", "        hdr.paxos.vround = round;\n",
    ),
    _acceptor(
        "a promise that hides a vote cast before", "reports-tell-votes",
        "            round = hdr.paxos.round;\n            changed = 1;\n",
        "            round = hdr.paxos.round;\n            vround = NO_ROUND;\n"
        "            changed = 1;\n",
    ),
    _acceptor(
        "a promise of one instance is not stored", "report-exact",
        "            round = hdr.paxos.round;\n            changed = 1;\n",
        "            round = hdr.paxos.round;\n",
    ),
    _acceptor(
        "the floor goes down", "group-grows", _STALE_LOG, "",
    ),
    _acceptor(
        "a promise of the log leaves the floor where it is", "promise-kept",
        "        floor_now = hdr.paxos.round;\n", "",
    ),
    _acceptor(
        "a summary for a range that has votes", "summary-exact",
        "end <= first || in_window == 0", "end <= first || in_window == 0 || end - first > 1",
    ),
    # The group's registers
    _acceptor("low goes down", "low", "if (hdr.paxos.low > low_now) {",
              "if (hdr.paxos.low != low_now) {"),
    _acceptor("low jumps", "low", "if (hdr.paxos.low - low_now > LOW_JUMP_MAX) {",
              "if (hdr.paxos.low - low_now > LOW_JUMP_MAX + 1) {"),
    _acceptor("any message moves low", "low",
              "            HEARTBEAT: raise_low();\n        }\n"
              "        const default_action = NoAction();",
              "            HEARTBEAT: raise_low();\n        }\n"
              "        const default_action = raise_low();"),
    _acceptor("highest falls behind low", "highest-of-votes", _RAISE_HIGHEST, ""),
    _acceptor("a vote above highest", "highest", _VOTED_HIGHEST, ""),
    _acceptor("a vote above highest_round", "reads-see-votes", _CAST,
              _CAST.replace("        promise();\n", "")),
    # Questions
    _acceptor("READ_INDEX_REPLY tells the floor", "read-index",
              "hdr.paxos.instance = highest_now;\n            hdr.paxos.round = highest_round_now;",
              "hdr.paxos.instance = highest_now;\n            hdr.paxos.round = floor_now;"),
    _acceptor("an incarnation goes down", "record", "if (known < told) {", "if (known != told) {"),
    _acceptor("RECORD writes its neighbour's incarnation", "record",
              "bit<16> shift = (ACCEPTORS - 1 - hdr.paxos.sender) << 5;",
              "bit<16> shift = hdr.paxos.sender << 5;"),
    _acceptor("a former life writes its own incarnation", "record",
              "} else if (hdr.paxos.sender == meta.id) {", "} else if (false) {"),
    # What leaves
    _acceptor("LEARN is answered to all", "addressed",
              "            vote();\n            meta.verdict = VERDICT_REPLY;\n",
              "            vote();\n            meta.verdict = VERDICT_TELL;\n"),
    _acceptor("an answer goes where the question went", "addressed",
              "        hdr.ipv4.destination = host;\n        hdr.udp.destination = port;\n"
              "        set_lengths();",
              "        hdr.udp.destination = port;\n        set_lengths();", "sending.p4"),
    _acceptor("answers have no incarnation", "signed",
              "        hdr.paxos.incarnation = meta.incarnation;\n", ""),
    _acceptor("UDP's length stays that of the question", "signed",
              "        hdr.udp.length = MESSAGE_BYTES + meta.value_bytes;\n", "", "sending.p4"),
    # Of any program
    _acceptor("a header that was not there is read", "header",
              "if (!hdr.paxos.isValid() || hdr.udp.length < MESSAGE_BYTES) {",
              "if (hdr.udp.length < MESSAGE_BYTES) {", "admission.p4"),
    _acceptor("a header is filled and not made valid", "header",
              "        hdr.value.setValid();\n", ""),
    _acceptor("more outcomes than counters", "index", "OUTCOMES = 32;", "OUTCOMES = 20;",
              "outcomes.p4"),
    _acceptor("sent to a group and dropped", "fate",
              "standard_metadata.egress_spec = standard_metadata.ingress_port; // no port of any",
              "// no port of any", "sending.p4"),
    _acceptor("a variable is read before it is set", "unset",
              "    bit<1> in_window = 0;\n", "    bit<1> in_window;\n"),
    _acceptor("an assert that does not hold", "assert",
              "        meta.outcome = OUTCOME_VOTES;\n",
              "        meta.outcome = OUTCOME_VOTES;\n        ASSERT(first > low_now);\n"),
    # The coordinator
    _coordinator("trap 5: two values in one instance", "one-value-a-round",
                 "        next.write((bit<32>) meta.group, next_now + 1);\n", ""),
    _coordinator("an instance is left out", "next-instance", "next_now + 1)", "next_now + 2)"),
    _coordinator("trap 8: it proposes without a round", "inactive",
                 "if (round_now == NO_ROUND) {\n            meta.outcome = OUTCOME_INACTIVE;\n"
                 "        } else if (", "if ("),
    _coordinator("it proposes above the window", "window", "next_now - low_now >= WINDOW",
                 "next_now - low_now > WINDOW"),
    _coordinator("it has no window", "no-wrap",
                 "} else if (next_now - low_now >= WINDOW) {\n"
                 "            meta.outcome = OUTCOME_WINDOW_FULL;\n        ", ""),
    _coordinator("it stops when low passes next", "answers",
                 _RAISE_NEXT, ""),
    _coordinator("it answers whatever comes", "requests-only",
                 "const default_action = ignore();", "const default_action = request();"),
    _coordinator("it moves low itself", "registers",
                 "        meta.outcome = OUTCOME_PROPOSED;\n",
                 "        meta.outcome = OUTCOME_PROPOSED;\n"
                 "        low.write((bit<32>) meta.group, next_now);\n"),
    _coordinator("it sends another value", "value", "hdr.value.data = meta.value;",
                 "hdr.value.data = 0;"),
    _coordinator("it keeps the proposer's id", "signed",
                 "        hdr.paxos.sender = meta.id;\n", ""),
)  # fmt: skip
