// The peer of the benchmark: Hocuspocus with its database extension on Postgres, every option at its default.
import { Database } from '@hocuspocus/extension-database'
import { Server } from '@hocuspocus/server'
import pg from 'pg'

const pool = new pg.Pool({ max: 10 })
await pool.query('CREATE TABLE IF NOT EXISTS documents (name text PRIMARY KEY, data bytea NOT NULL)')

const read = 'SELECT data FROM documents WHERE name = $1'
const write = 'INSERT INTO documents (name, data) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET data = excluded.data'

await new Server({
  port: Number(process.env.PORT),
  address: '127.0.0.1',
  quiet: true,
  extensions: [
    new Database({
      fetch: async ({ documentName }) => (await pool.query(read, [documentName])).rows[0]?.data ?? null,
      store: async ({ documentName, state }) => void (await pool.query(write, [documentName, state])),
    }),
  ],
}).listen()
