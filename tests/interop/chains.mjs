// A chain of compactions, judged: after each step, after late updates, and for a client that saw part of it live.

import * as Y from 'yjs'
import { compare, describe, documentOf, receive, visible } from './describing.mjs'

// Where an editor parted a surrogate pair, it sends U+FFFD for what another still sends as the pair; which of both a
// document holds depends on what came first, so that both count as the same.
const withoutPairs = (key, value) => {
  if (!Array.isArray(value) || value[2] !== 'ContentString') return value
  const [client, clock, name, code] = value
  return [client, clock, name, code >= 0xd800 && code <= 0xdfff ? 0xfffd : code]
}

// `steps` are {updates, merged, folded}, of which those `judged` are looked at: what arrived, the merge of all so
// far without any fold, and the chain's fold. `late` arrives after each of them. At the end `all` has arrived in
// `merged` and `folded`, once as one update and once as it came.
export const chainDifference = ({ steps, late, merged, folded, gc, keepDeleted, parted, mixed }, bytes) => {
  const arrived = []
  const versions = []
  const after = late.map(bytes)
  const shown = doc => parted ? JSON.parse(JSON.stringify(describe(doc), withoutPairs)) : describe(doc)
  const differing = (what, left, right) => {
    const difference = compare(shown(documentOf(left, gc)), shown(documentOf(right, gc)))
    return difference === null ? null : `${what}: ${difference}`
  }
  for (const [number, step] of steps.entries()) {
    arrived.push(...step.updates.map(bytes))
    if (!step.judged) continue
    const [plain, compacted] = [bytes(step.merged), bytes(step.folded)]
    const difference = differing(`step ${number}`, [plain], [compacted]) ??
      (mixed === number
        ? differing(`step ${number}, then the late ones`, [plain, ...after], [compacted, ...after]) ??
          differing(`step ${number}, for who saw it live`, [...arrived, plain], [...arrived, compacted])
        : null)
    if (difference !== null) return difference
    if (keepDeleted) versions.push([number, Y.snapshot(documentOf([plain], false))])
  }
  const [plain, compacted] = [bytes(merged), bytes(folded)]
  return differing('the end', [plain], [compacted]) ??
    liveDifference(documentOf([...arrived, ...after], gc), compacted, shown, gc) ??
    versionDifference(versions, plain, compacted)
}

// Somebody who got every update as it came shows what the fold shows, and nothing changes when the fold comes too.
const liveDifference = (live, compacted, shown, gc) => {
  const expected = shown(documentOf([compacted], gc))
  const before = compare(shown(live), expected, true)
  if (before !== null) return `the end against what came, one by one: ${before}`
  receive(live, [compacted])
  const after = compare(shown(live), expected, true)
  return after === null ? null : `the end, for who saw it live: ${after}`
}

// Versions are what editors keep deleted content for: each must restore to the same from either.
const versionDifference = (versions, plain, compacted) => {
  const [left, right] = [documentOf([plain], false), documentOf([compacted], false)]
  for (const [number, version] of versions) {
    const [a, b] = [left, right].map(doc => {
      const restored = Y.createDocFromSnapshot(doc, version)
      return Object.fromEntries([...restored.share.keys()].sort().map(name => [name, visible(restored.share.get(name))]))
    })
    const difference = compare(a, b)
    if (difference !== null) return `the version of step ${number}: ${difference}`
  }
  return null
}
