/** What the data say of any order. Decisions are numbers; a set of them is a code of bits. */
function orderModel(data) {
  const size = data.decisions.length;
  const allowed = (code) => data.rules.every(([one, needed]) => !(code >> one & 1) || code >> needed & 1);
  const codes = Array.from({ length: 2 ** size }, (_, code) => code).filter(allowed);
  const place = new Map(codes.map((code, index) => [code, index]));
  const measured = new Map(data.measured.map(([code, mean, runs]) => [code, { mean, runs }]));
  const contexts = data.decisions.map((_, decision) => {
    const before = codes.filter((code) => !(code >> decision & 1) && place.has(code | 1 << decision));
    return new Map(before.map((code, index) => [code, data.credit_margins[decision][index]]));
  });

  /** The model's accuracy of a set. */
  function predicted(code) {
    const has = (decision) => code >> decision & 1;
    const taken = [1, ...data.decisions.map((_, decision) => has(decision)),
      ...data.pairs.map(([one, other]) => has(one) & has(other))];
    return taken.reduce((sum, yes, term) => sum + (yes ? data.coefficients[term] : 0), 0);
  }

  /** A set's accuracy: measured, or else predicted with a margin. */
  function value(code) {
    if (measured.has(code)) return { code, accuracy: measured.get(code).mean, runs: measured.get(code).runs };
    return { code, accuracy: predicted(code), runs: 0, margin: data.margins[place.get(code)] };
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
        margin: contexts[decision].get(before.code),
      };
    });
    return { order, points, credits };
  }

  return { curve, broken };
}
