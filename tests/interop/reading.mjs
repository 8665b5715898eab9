// What stock code reads from a document, and writes into one: Yjs's own JSON and text, ProseMirror's by y-prosemirror.

import * as Y from 'yjs'
import { Node, Schema } from 'prosemirror-model'
import { schema as basic } from 'prosemirror-schema-basic'
import { prosemirrorToYDoc, yDocToProsemirrorJSON } from 'y-prosemirror'

const readers = {
  prosemirror: (doc, name) => yDocToProsemirrorJSON(doc, name),
  map: (doc, name) => doc.getMap(name).toJSON(),
  array: (doc, name) => doc.getArray(name).toJSON(),
  text: (doc, name) => doc.getText(name).toString(),
  // A type would be told as what is in it, a text as a string.
  delta: (doc, name) => doc.getText(name).toDelta().map(
    run => run.insert instanceof Y.AbstractType ? { ...run, insert: { shared: null } } : run),
  xml: (doc, name) => doc.getXmlFragment(name).toString()
}

const loaded = updates => {
  const doc = new Y.Doc()
  for (const update of updates) Y.applyUpdate(doc, update)
  return doc
}

const readAll = (doc, roots) => Object.fromEntries(Object.entries(roots).map(([name, as]) => [name, readers[as](doc, name)]))

export const read = (updates, roots) => readAll(loaded(updates), roots)

// Edits as edits.py has them, on root types alone, made by Yjs itself.
const editors = {
  map: (map, { op, path, value }) => op === 'set' ? map.set(path[1], value) : map.delete(path[1]),
  array: (array, { op, path, values, count }) => {
    if (op === 'delete') array.delete(path[1], count)
    else array.insert(op === 'append' ? array.length : path[1], values)
  },
  delta: (text, { op, path, text: inserted, embed, attributes, count }) => {
    if (op === 'delete') text.delete(path[1], count)
    else if (op === 'format') text.format(path[1], count, attributes)
    else if (embed) text.insertEmbed(op === 'append' ? text.length : path[1], embed, attributes)
    else text.insert(op === 'append' ? text.length : path[1], inserted, attributes)
  }
}

export const edited = (updates, roots, edits) => {
  const doc = loaded(updates)
  const types = { map: name => doc.getMap(name), array: name => doc.getArray(name), delta: name => doc.getText(name) }
  for (const edit of edits) {
    const as = roots[edit.path[0]]
    editors[as](types[as](edit.path[0]), edit)
  }
  return readAll(doc, roots)
}

// The basic schema, with a mark that may overlap itself, as comments do, and a node with attributes of every kind.
const schema = new Schema({
  nodes: basic.spec.nodes.addToEnd('widget', {
    group: 'block', attrs: { level: { default: 1 }, on: { default: false }, data: { default: null }, label: { default: '' } }
  }),
  marks: basic.spec.marks.addToEnd('comment', { attrs: { id: {}, by: { default: null } }, excludes: '' })
})

export const written = json => Y.encodeStateAsUpdate(prosemirrorToYDoc(Node.fromJSON(schema, json), 'default'))
