"""Steps of kernels for which numba has no words, as instructions of LLVM; none checks its bounds."""

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic


def _one_word(name: str) -> Any:
    """Return a function of one word, one instruction, by its name in LLVM."""

    @intrinsic
    def function(context: Any, word: Any) -> Any:  # noqa: ARG001
        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:  # noqa: ARG001
            if name == "cttz":
                return builder.cttz(values[0], ir.Constant(ir.IntType(1), 0))
            return builder.ctpop(values[0])

        return types.uint64(types.uint64), generate

    return function


trailing_zeros, population = _one_word("cttz"), _one_word("ctpop")


def _whole_word(context: Any, data: Any, at: Any) -> Any:  # noqa: ARG001
    """Return the eight bytes that begin at ``at``, wherever these lie in memory."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, values[0])
        word = builder.bitcast(builder.gep(array.data, [values[1]]), ir.IntType(64).as_pointer())
        return builder.load(word, align=1)

    return types.uint64(data, types.int64), generate


def _write_eight(context: Any, target: Any, at: Any, octets: Any, added: Any) -> Any:  # noqa: ARG001
    """Write the eight bytes of a word, with a number added to each, from ``at`` on."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, values[0])
        eight = ir.VectorType(context.get_value_type(target.dtype), 8)
        numbers = builder.zext(builder.bitcast(values[2], ir.VectorType(ir.IntType(8), 8)), eight)
        begin = builder.bitcast(builder.gep(array.data, [values[1]]), eight.as_pointer())
        sums = builder.add(numbers, _everywhere(builder, eight, values[3]))
        builder.store(sums, begin, align=1)
        return context.get_dummy_value()

    return types.void(target, types.int64, types.uint64, target.dtype), generate


def _set_octets(context: Any, octets: Any, first: Any, word: Any, value: Any) -> Any:  # noqa: ARG001
    """Set bits in those of 64 bytes from ``first`` on whose own bit of a word is set."""
    vector, byte = ir.VectorType(ir.IntType(8), 64), ir.IntType(8)
    spread = ir.Constant(ir.VectorType(ir.IntType(32), 64), [at // 8 for at in range(64)])
    own_bit = ir.Constant(vector, [1 << at % 8 for at in range(64)])

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, values[0])
        target = builder.bitcast(builder.gep(array.data, [values[1]]), vector.as_pointer())
        eight = builder.bitcast(values[2], ir.VectorType(byte, 8))
        bits = builder.and_(builder.shuffle_vector(eight, eight, spread), own_bit)
        chosen = builder.select(
            builder.icmp_unsigned("==", bits, own_bit),
            _everywhere(builder, vector, values[3]),
            ir.Constant(vector, [0] * 64),
        )
        builder.store(builder.or_(builder.load(target, align=1), chosen), target, align=1)
        return context.get_dummy_value()

    return types.void(octets, types.int64, types.uint64, types.uint8), generate


def _everywhere(builder: Any, kind: Any, value: Any) -> Any:
    """Return a vector of one value."""
    one = builder.insert_element(
        ir.Constant(kind, ir.Undefined), value, ir.Constant(ir.IntType(32), 0)
    )
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), kind.count), [0] * kind.count)
    return builder.shuffle_vector(one, one, zeros)


whole_word: Any = intrinsic(_whole_word)
write_eight: Any = intrinsic(_write_eight)
set_octets: Any = intrinsic(_set_octets)
