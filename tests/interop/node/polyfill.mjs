// Node 20 does not have this yet, and Helia wants it.
Promise.withResolvers ??= function () {
  let resolve, reject
  const promise = new Promise((accept, refuse) => { resolve = accept; reject = refuse })
  return { promise, resolve, reject }
}
