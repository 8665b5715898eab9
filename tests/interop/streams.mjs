// The stock client of Durable Streams, as a program: writes COUNT messages to the stream at URL with an idempotent
// producer while it reads them by long-poll and by events, then closes the stream. Says in one line of JSON what each
// reader was given. Run by test_streams.py.

import { DurableStream, IdempotentProducer, stream } from '@durable-streams/client'

const [url, count] = [process.argv[2], Number(process.argv[3])]
const pause = ms => new Promise(resolve => setTimeout(resolve, ms))

const handle = await DurableStream.create({ url, contentType: 'application/json' })

const read = async live => {
  const seen = []
  const response = await stream({ url, offset: '-1', live, json: true })
  for await (const message of response.jsonStream()) seen.push(message.n)
  return seen
}
const readers = ['long-poll', 'sse'].map(read)

const errors = []
const producer = new IdempotentProducer(handle, 'writer', {
  lingerMs: 1,
  maxBatchBytes: 100,
  onError: error => errors.push(String(error))
})
for (let n = 0; n < count - 1; n++) {
  producer.append(JSON.stringify({ n }))
  if (n % 10 === 0) await pause(10)
}
await producer.flush()
await producer.close(JSON.stringify({ n: count - 1 }))
const [longPoll, sse] = await Promise.all(readers)
console.log(JSON.stringify({ longPoll, sse, errors }))
