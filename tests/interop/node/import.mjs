// The root CID that js-ipfs's importer gives a file or folder: import.mjs PROFILE PATH
import { createReadStream } from 'node:fs'
import { lstat, readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { MemoryBlockstore } from 'blockstore-core'
import { importer } from 'ipfs-unixfs-importer'

const [profile, path] = process.argv.slice(2)

async function * walk (path, name) {
  if (!(await lstat(path)).isDirectory()) {
    yield { path: name, content: createReadStream(path) }
    return
  }
  const names = await readdir(path)
  if (names.length === 0) yield { path: name }
  for (const each of names) yield * walk(join(path, each), `${name}/${each}`)
}

let last
for await (const entry of importer(walk(path, 'root'), new MemoryBlockstore(), { profile })) last = entry
console.log(last.cid.toString())
