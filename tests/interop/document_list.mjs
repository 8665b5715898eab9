// A live list of documents in TanStack DB, by the stock package. Prints the list as one JSON line whenever it changes:
// `node document_list.mjs URL LIVE`, LIVE being sse or long-poll.

import { createStateSchema } from '@durable-streams/state'
import { createStreamDB } from '@durable-streams/state/db'

const [url, live] = process.argv.slice(2)

const isDocument = value =>
  typeof value.name === 'string' && Number.isInteger(value.seq) && Number.isInteger(value.epoch)
const schema = {
  '~standard': {
    version: 1,
    vendor: 'ydoc-store',
    validate: value => isDocument(value) ? { value } : { issues: [{ message: 'no document' }] },
  },
}
const state = createStateSchema({ documents: { schema, type: 'document', primaryKey: 'name' } })
const db = createStreamDB({ streamOptions: { url, contentType: 'application/json' }, live, state })

const show = () => {
  const list = Object.fromEntries(db.collections.documents.toArray.map(({ name, seq, epoch }) => [name, [epoch, seq]]))
  console.log(JSON.stringify(list))
}
await db.preload()
show()
db.collections.documents.subscribeChanges(show)
