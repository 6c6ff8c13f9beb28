"""Controls and parsers: their locals, and each put in where it is applied."""

from __future__ import annotations

from collections.abc import Sequence

from switch.lang import ir, operations, statements, syntax
from switch.lang.calls import check_target, in_order, instantiate
from switch.lang.errors import P4Error, unsupported
from switch.lang.expressions import declare, evaluate, find, meaning_of, read_only, resolve
from switch.lang.ir import Bits, Where
from switch.lang.moving import assign
from switch.lang.returns import without_returns
from switch.lang.tables import declare_action, declare_table, exits, match_of
from switch.lang.types import Extern, Type
from switch.lang.values import (
    BlockName,
    ExternName,
    Frame,
    Group,
    InstanceName,
    Meaning,
    Result,
    Scope,
    TypeName,
    Unit,
    Value,
    kind_of,
)

Local = syntax.Variable | syntax.Constant | syntax.Instance | syntax.Action | syntax.Table


# Locals


def declare_locals(frame: Frame, locals_: Sequence[Local]) -> None:
    """What a control or parser declares before its body."""
    for tree in locals_:
        match tree:
            case syntax.Variable():
                statements.variable(frame, tree)
            case syntax.Constant():
                statements.constant(frame, tree)
            case syntax.Instance():
                declare_instance(frame, tree)
            case syntax.Action():
                declare_action(frame, tree)
            case syntax.Table():
                declare_table(frame, tree)


def declare_instance(frame: Frame, tree: syntax.Instance) -> None:
    """A register, a counter, or a control or parser under a name of its own."""
    meaning = find(frame, tree.type.name, tree.where)
    if isinstance(meaning, BlockName):
        constructor = _constructor(frame, meaning, tree.arguments, tree.where)
        instance = InstanceName(meaning.tree, meaning.scope, frame.named(tree.name), constructor)
        frame.unit.instances.add(instance.path)
        frame.scope.declare(tree.name, instance, tree.where)
        return
    if not isinstance(meaning, TypeName) or not isinstance(meaning.type, Extern):
        raise P4Error(tree.where, f"{tree.type.name} is {kind_of(meaning)}: expected a control, a "
                      "parser, or a register or counter of v1model")  # fmt: skip
    kind = meaning.type.name
    if kind not in ("register", "counter", "direct_counter"):
        raise unsupported(tree.where, f"{kind} of v1model")
    width = 0
    if kind == "register":
        types = [resolve(frame, each) for each in tree.type.arguments]
        if len(types) != 1 or not isinstance(types[0], Bits) or types[0].signed:
            found = ", ".join(map(str, types)) or "nothing"
            raise P4Error(tree.where, f"a register of {found}: expected register<bit<...>>")
        width = types[0].width
    elif tree.type.arguments:
        raise P4Error(tree.where, f"{kind} takes no types")
    frame.scope.declare(tree.name, instantiate(frame, tree, width), tree.where)


def _constructor(
    frame: Frame, block: BlockName, given: Sequence[syntax.Argument], where: Where
) -> dict[str, Result]:
    parameters = block.tree.constructor
    names = [each.name for each in parameters]
    arguments = in_order(given, names, block.tree.name, where)
    return {
        each.name: statements.constant_of(
            resolve(frame, each.type), evaluate(frame, argument.value), argument.where
        )
        for each, argument in zip(parameters, arguments, strict=True)
    }


# Parameters


class _Binding:
    """What the parameters of an applied block stand for: variables of whoever applies it."""

    def __init__(self, frame: Frame, instance: InstanceName, call: syntax.Call) -> None:
        self.frame = frame
        self.instance = instance
        self.meanings: dict[str, Meaning] = {}
        self._back: list[tuple[Value, Value, syntax.Expression]] = []
        tree = instance.tree
        names = [each.name for each in tree.parameters]
        arguments = in_order(call.arguments, names, tree.name, call.where)
        given = [meaning_of(frame, each.value) for each in arguments]
        for at, (parameter, argument) in enumerate(zip(tree.parameters, arguments, strict=True)):
            shared = any(
                _overlap(given[at], other)
                and (parameter.direction != "in" or tree.parameters[i].direction != "in")
                for i, other in enumerate(given)
                if i != at
            )
            self.meanings[parameter.name] = self._bind(parameter, given[at], argument.value, shared)
        if instance.bound is not None and not _equal(instance.bound, self.meanings):
            raise unsupported(call.where, f"{tree.name} applied again with other arguments; "
                              "give each use an instance of its own")  # fmt: skip

    def _bind(
        self, parameter: syntax.Parameter, given: Meaning, spelled: syntax.Expression, shared: bool
    ) -> Meaning:
        type_ = resolve(Frame(self.frame.unit, "", self.instance.scope, "program"), parameter.type)
        if isinstance(type_, Extern):
            if not isinstance(given, ExternName) or given.kind != type_.name:
                raise P4Error(spelled.where, f"found {kind_of(given)}, expected a {type_.name}")
            return given
        if not isinstance(given, Result):
            raise P4Error(spelled.where, f"found {kind_of(given)}, expected {type_}")
        if parameter.direction in ("out", "inout"):
            check_target(given, type_, spelled, parameter.direction)
        elif not parameter.direction:
            raise unsupported(parameter.where, f"{parameter.name} without in, out or inout")
        if isinstance(given, Group) and given.path is not None:
            return self._group(parameter, given, type_, spelled, shared)
        whole = isinstance(given, Value) and given.place is not None and given.place.high is None
        if parameter.direction != "in" and whole and not shared:
            return given
        return self._copied(parameter, type_, given, spelled)

    def _group(
        self, parameter: syntax.Parameter, given: Group, type_: Type, spelled: syntax.Expression,
        shared: bool,
    ) -> Meaning:  # fmt: skip
        operations.convert(given, type_, spelled.where)
        if shared:
            raise unsupported(spelled.where, "an argument that is part of another one, of which "
                              "one is changed")  # fmt: skip
        if parameter.direction == "in":
            return read_only(given)
        if parameter.direction == "out":
            for header in given.headers():
                assert header.path is not None
                self.frame.emit(ir.SetInvalid(header.path, spelled.where))
        return given

    def _copied(
        self, parameter: syntax.Parameter, type_: Type, given: Result, spelled: syntax.Expression
    ) -> Meaning:
        known = (self.instance.bound or {}).get(parameter.name)
        path = f"{self.instance.path}.{parameter.name}"
        unit = self.frame.unit
        if isinstance(known, Value | Group):
            variable = declare(Unit(), path, type_, parameter.where)
        else:
            variable = declare(unit, unit.free(path), type_, parameter.where)
        if parameter.direction != "out":
            assign(self.frame, variable, given, spelled, spelled.where)
        if parameter.direction == "in":
            return read_only(variable)
        assert isinstance(given, Value)
        assert isinstance(variable, Value)
        self._back.append((given, variable, spelled))
        return variable

    def finish(self, where: Where, exits: bool) -> None:
        """Copies back what was not handed over as it is; an exit would leave that out."""
        if self._back and exits:
            raise unsupported(where, f"exit in {self.instance.tree.name}, whose changed arguments "
                              "overlap or are slices; hand it variables of their own")  # fmt: skip
        for target, value, spelled in self._back:
            assign(self.frame, target, value, spelled, spelled.where)


def _path(meaning: Meaning) -> str | None:
    if isinstance(meaning, Value):
        return meaning.place.path if meaning.place is not None else None
    return meaning.path if isinstance(meaning, Group) else None


def _overlap(first: Meaning, second: Meaning) -> bool:
    a, b = _path(first), _path(second)
    if a is None or b is None:
        return False
    return a == b or a.startswith(f"{b}.") or b.startswith(f"{a}.")


def _equal(first: dict[str, Meaning], second: dict[str, Meaning]) -> bool:
    def key(meaning: Meaning) -> object:
        if isinstance(meaning, Value) and isinstance(meaning.expression, ir.Read):
            return meaning.expression.path
        return meaning.path if isinstance(meaning, Group) else meaning

    return all(key(meaning) == key(second[name]) for name, meaning in first.items())


# Controls


def apply_block(frame: Frame, owner: InstanceName | BlockName, call: syntax.Call) -> None:
    """instance.apply(...) of a control; parsers are applied by states only."""
    if isinstance(owner, BlockName):
        owner = _unnamed(frame, owner, call.where)
    if isinstance(owner.tree, syntax.Parser):
        raise unsupported(call.where, f"the parser {owner.tree.name} applied here; apply it in a "
                          "state of a parser, outside of if")  # fmt: skip
    if frame.kind != "control":
        raise P4Error(call.where, f"a control applied in an {frame.kind}: expected it in the "
                      "apply of a control")  # fmt: skip
    binding = _Binding(frame, owner, call)
    if owner.bound is None:
        owner.bound = binding.meanings
        owner.prologue, owner.body = lower_control(frame.unit, owner)
        inlined = Frame(frame.unit, owner.path, owner.scope, "control")
        owner.body = without_returns(inlined, owner.body)
    frame.block += [*owner.prologue, *owner.body]
    binding.finish(call.where, exits(frame.unit, owner.body))


def _unnamed(frame: Frame, block: BlockName, where: Where) -> InstanceName:
    """`Name.apply(...)`: an instance that is called as its type is."""
    constructor = _constructor(frame, block, (), where)
    path, count = frame.named(block.tree.name), 1
    while path in frame.unit.instances:
        count += 1
        path = f"{frame.named(block.tree.name)}${count}"
    frame.unit.instances.add(path)
    return InstanceName(block.tree, block.scope, path, constructor)


def lower_control(unit: Unit, instance: InstanceName) -> tuple[ir.Block, ir.Block]:
    """First values of its variables, and its body, for what its parameters are bound to."""
    tree = instance.tree
    assert isinstance(tree, syntax.Control)
    frame = _frame_of(unit, instance, "control")
    declare_locals(frame, tree.locals)
    body = Frame(unit, instance.path, Scope(frame.scope), "control")
    statements.lower_all(body, tree.body.items)
    return tuple(frame.block), tuple(body.block)


def _frame_of(unit: Unit, instance: InstanceName, kind: str) -> Frame:
    scope = Scope(instance.scope)
    for parameter in instance.tree.constructor:
        meaning = instance.constructor[parameter.name]
        scope.declare(parameter.name, meaning, parameter.where)
    assert instance.bound is not None
    for parameter in instance.tree.parameters:
        scope.declare(parameter.name, instance.bound[parameter.name], parameter.where)
    return Frame(unit, instance.path, Scope(scope), kind)


# Parsers


def lower_parser(unit: Unit, instance: InstanceName, prefix: str, accept: str) -> None:
    """Its states, named `<prefix><state>`; its accept goes to the state `accept`."""
    tree = instance.tree
    assert isinstance(tree, syntax.Parser)
    frame = _frame_of(unit, instance, "parser")
    declare_locals(frame, tree.locals)
    names = {"accept": accept, "reject": "reject"}
    for state in tree.states:
        if state.name in names:
            raise P4Error(state.where, f"the state {state.name} is there already")
        names[state.name] = prefix + state.name
    if "start" not in names:
        raise P4Error(tree.where, f"parser {tree.name} has no state start: expected one")
    for state in sorted(tree.states, key=lambda each: each.name != "start"):
        prologue = list(frame.block) if state.name == "start" else []
        _State(frame, state, names, prologue).lower()


class _State:
    """A state becomes one, or several around the parsers that it applies."""

    def __init__(
        self, frame: Frame, tree: syntax.State, names: dict[str, str],
        prologue: list[ir.Statement],
    ) -> None:  # fmt: skip
        self.tree = tree
        self.names = names
        self.name = names[tree.name]
        self.frame = frame.inner()
        self.frame.block = prologue
        self._restarts = bool(prologue)

    def lower(self) -> None:
        for item in self.tree.body:
            applied = self._applied(item)
            if applied is None:
                statements.lower(self.frame, item)
            else:
                self._apply(*applied)
        transition = self.tree.transition
        if transition is None:
            self._end((), (ir.Case((), "reject"),))
            return
        subjects = [
            operations.scalar(evaluate(self.frame, each), each.where) for each in transition.select
        ]
        cases = tuple(self._case(each, subjects) for each in transition.cases)
        self._end(tuple(each.expression for each in subjects), cases)

    def _end(self, select: tuple[ir.Expression, ...], cases: tuple[ir.Case, ...]) -> None:
        block = tuple(self.frame.block)
        state = ir.State(self.name, block, select, cases, self.tree.where)
        self.frame.unit.states[self.name] = state

    def _case(self, tree: syntax.SelectCase, subjects: Sequence[Value]) -> ir.Case:
        state = self.names.get(tree.state)
        if state is None:
            raise P4Error(tree.where, f"there is no state {tree.state}, expected one of "
                          f"{', '.join(self.names)}")  # fmt: skip
        if tree.state == "start" and self.frame.block and self._restarts:
            raise unsupported(tree.where, "a transition to start in a parser whose variables have "
                              "first values; let start go on to a state of your own")  # fmt: skip
        keys = tree.keys
        if len(keys) == 1 and isinstance(keys[0], syntax.Anything):
            keys = keys * len(subjects)
        if len(keys) != len(subjects):
            raise P4Error(tree.where, f"{len(keys)} keys in this case, expected {len(subjects)}")
        matches = tuple(
            match_of(self.frame, key, subject, "select")
            for key, subject in zip(keys, subjects, strict=True)
        )
        return ir.Case(matches, state)

    def _applied(self, item: syntax.Statement) -> tuple[InstanceName, syntax.Call] | None:
        if not isinstance(item, syntax.CallStatement):
            return None
        operand = item.call.operand
        if not isinstance(operand, syntax.Member) or operand.name != "apply":
            return None
        owner = meaning_of(self.frame, operand.operand)
        if isinstance(owner, BlockName):
            owner = _unnamed(self.frame, owner, item.where)
        if isinstance(owner, InstanceName) and isinstance(owner.tree, syntax.Parser):
            return owner, item.call
        return None

    def _apply(self, instance: InstanceName, call: syntax.Call) -> None:
        """This state ends before the other parser's start; a new one goes on behind its accept."""
        instance.bound = None  # its states are made anew each time, and its variables with them
        binding = _Binding(self.frame, instance, call)
        instance.bound = binding.meanings
        short = instance.path.rpartition(".")[2]
        prefix, after = f"{self.name}.{short}.", f"{self.name}.after_{short}"
        self._end((), (ir.Case((), f"{prefix}start"),))
        lower_parser(self.frame.unit, instance, prefix, after)
        self.name = after
        self.frame.block = []
        binding.finish(call.where, False)
