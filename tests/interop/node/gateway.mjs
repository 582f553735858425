// Helia as a trustless gateway over the blocks of some CAR files: gateway.mjs FILE.car …
// Prints its URL when it is ready, and ends when standard input does.
import './polyfill.mjs'
import { createReadStream } from 'node:fs'
import { createServer } from 'node:http'
import { Readable } from 'node:stream'
import { createVerifiedFetch } from '@helia/verified-fetch'
import { CarBlockIterator } from '@ipld/car'
import { MemoryBlockstore } from 'blockstore-core'
import { createHeliaLight } from 'helia'

const TYPES = { raw: 'application/vnd.ipld.raw', car: 'application/vnd.ipld.car' }

const blockstore = new MemoryBlockstore()
for (const path of process.argv.slice(2)) {
  for await (const { cid, bytes } of await CarBlockIterator.fromIterable(createReadStream(path))) {
    await blockstore.put(cid, bytes)
  }
}
const helia = createHeliaLight({ blockstore })
await helia.start()
const fetch = await createVerifiedFetch(helia)

const server = createServer(async (request, response) => {
  try {
    const url = new URL(request.url, 'http://gateway')
    const target = decodeURIComponent(url.pathname).replace(/^\/ipfs\//, 'ipfs://') + url.search
    const accept = TYPES[url.searchParams.get('format')] ?? request.headers.accept // verified-fetch reads only Accept
    const answer = await fetch(target, { headers: { accept }, session: false, offline: true })
    response.writeHead(answer.status, Object.fromEntries(answer.headers))
    answer.body ? Readable.fromWeb(answer.body).pipe(response) : response.end()
  } catch (error) {
    response.writeHead(404).end(String(error))
  }
})
server.listen(0, '127.0.0.1', () => console.log(`http://127.0.0.1:${server.address().port}`))
process.stdin.on('end', () => process.exit(0)).resume()
