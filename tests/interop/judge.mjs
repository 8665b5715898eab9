// Yjs as the judge: answers questions about updates, one JSON object a line in, one a line out.
//
// {op: "history", seed, exotic}         -> {updates, clients}: what random editors of all shared types sent
// {op: "compare", left, right, gc, …}   -> {difference}: null, or where two lists of updates, applied, differ
// {op: "describe", updates}             -> what a document shows, has and waits for after them
// {op: "encode", updates}               -> {update}: Y.encodeStateAsUpdate of a document after them
// {op: "prosemirror", seed, …}          -> {updates}: what y-prosemirror sent while some people wrote
// {op: "read", updates, roots}          -> {roots}: what root types say, each read as `{name: as}` asks (reading.mjs)
// {op: "written", json}                 -> {update}: what y-prosemirror writes for a ProseMirror document
// {op: "edited", updates, roots, edits} -> {roots}: what root types say after edits made by Yjs's own calls
// {op: "draft"}                         -> {updates, version}: an editor with gc: false, and its version of a first draft
// {op: "restore", updates, version}     -> {text}: what that version shows in a document after the updates
// {op: "phase", seed, snapshot, …}      -> {updates}: what editors send who work on while a server compacts
// {op: "chain", seed, steps, all, …}    -> {difference}: null, or where a chain of folds differs (chains.mjs)
// {op: "batch", questions}              -> {answers}: many at once
// Updates travel in base64. It ends when its input does, so that no test can leave it behind.

import readline from 'node:readline'
import process from 'node:process'
import * as Y from 'yjs'
import { Editing, history } from './histories.mjs'
import { prosemirrorHistory } from './prosemirror.mjs'
import { chainDifference } from './chains.mjs'
import { compare, describe, documentOf } from './describing.mjs'
import { edited, read, written } from './reading.mjs'

const bytes = text => new Uint8Array(Buffer.from(text, 'base64'))
const base64 = update => Buffer.from(update).toString('base64')

const editings = new Map()

const answers = {
  history: ({ seed, exotic }) => {
    const { updates, clients } = history(seed, exotic)
    return { updates: updates.map(base64), clients }
  },
  compare: ({ left, right, gc, otherPortions }) => ({
    difference: compare(describe(documentOf(left.map(bytes), gc)), describe(documentOf(right.map(bytes), gc)), otherPortions)
  }),
  describe: ({ updates }) => describe(documentOf(updates.map(bytes))),
  encode: ({ updates }) => ({ update: base64(Y.encodeStateAsUpdate(documentOf(updates.map(bytes)))) }),
  prosemirror: ({ seed, steps, people }) => ({ updates: prosemirrorHistory(seed, steps, people).map(base64) }),
  read: ({ updates, roots }) => ({ roots: read(updates.map(bytes), roots) }),
  edited: ({ updates, roots, edits }) => ({ roots: edited(updates.map(bytes), roots, edits) }),
  written: ({ json }) => ({ update: base64(written(json)) }),
  draft: () => {
    const doc = new Y.Doc({ gc: false })
    const updates = []
    doc.on('update', update => updates.push(base64(update)))
    const text = doc.getText('text')
    for (const letter of 'first draft') text.insert(text.length, letter)
    const version = base64(Y.encodeSnapshot(Y.snapshot(doc)))
    text.delete(0, 6)
    text.insert(0, 'second ')
    return { updates, version }
  },
  restore: ({ updates, version }) => {
    const restored = Y.createDocFromSnapshot(documentOf(updates.map(bytes), false), Y.decodeSnapshot(bytes(version)))
    return { text: restored.getText('text').toString() }
  },
  phase: ({ seed, exotic, snapshot, steps }) => {
    if (snapshot === null) editings.set(seed, new Editing(seed, exotic))
    return { updates: editings.get(seed).phase(snapshot === null ? null : bytes(snapshot), steps).map(base64) }
  },
  chain: question => {
    editings.delete(question.seed)
    return { difference: chainDifference(question, bytes) }
  },
  batch: ({ questions }) => ({ answers: questions.map(question => answers[question.op](question)) })
}

for await (const line of readline.createInterface({ input: process.stdin })) {
  let answer
  try {
    const question = JSON.parse(line)
    answer = answers[question.op](question)
  } catch (error) {
    answer = { error: String(error?.stack ?? error) }
  }
  process.stdout.write(JSON.stringify(answer) + '\n')
}
