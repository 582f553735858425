// Read paths by Helia's verified-fetch from one gateway: read.mjs URL, paths as lines on standard input.
// Prints a line of JSON for each.
import './polyfill.mjs'
import { createHash } from 'node:crypto'
import { createInterface } from 'node:readline'
import { fallbackRouter } from '@helia/fallback-router'
import { trustlessGatewayBlockBroker } from '@helia/trustless-gateway-client'
import { createVerifiedFetch } from '@helia/verified-fetch'
import { createHeliaLight } from 'helia'
import { sha512 } from 'multiformats/hashes/sha2'

const helia = createHeliaLight({ hashers: [sha512] }) // as createHelia has it
const router = fallbackRouter({ gateways: [process.argv[2]] })
router.capabilities = () => [] // with fallback routers alone, Helia 7.1 waits for ever for the others
helia.addRouter(router)
helia.addBlockBroker(trustlessGatewayBlockBroker({ allowInsecure: true, allowLocal: true }))
await helia.start()
const fetch = await createVerifiedFetch(helia)

for await (const path of createInterface({ input: process.stdin })) {
  try {
    const answer = await fetch(`ipfs://${path}`, { session: false })
    const data = Buffer.from(await answer.arrayBuffer())
    const sha256 = createHash('sha256').update(data).digest('hex')
    console.log(JSON.stringify({ path, status: answer.status, size: data.length, sha256 }))
  } catch (error) {
    console.log(JSON.stringify({ path, error: String(error) }))
  }
}
process.exit(0)
