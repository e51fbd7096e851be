/** What the data say of any order. Decisions are numbers; a set of them is a code of bits. */
function orderModel(data) {
  /** A set's accuracy: measured in so many runs, or else predicted with a margin. */
  function value(code) {
    const [accuracy, runs, margin] = data.networks[code];
    return { code, accuracy, runs, margin };
  }

  /** The first decision that is taken before what it needs, with that; or nothing. */
  function broken(order) {
    return data.rules.find(([one, needed]) => order.indexOf(one) < order.indexOf(needed));
  }

  /** The points of an order's curve and the credit of each decision; null where it is forbidden. */
  function curve(order) {
    if (broken(order)) return null;
    const points = [value(0)];
    const credits = order.map((decision) => {
      const before = points.at(-1);
      points.push(value(before.code | 1 << decision));
      return {
        decision, change: points.at(-1).accuracy - before.accuracy,
        margin: data.credit_margins[decision][before.code],
      };
    });
    return { order, points, credits };
  }

  return { curve, broken };
}
