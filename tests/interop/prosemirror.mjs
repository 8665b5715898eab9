// Histories of a rich-text document, by y-prosemirror itself: what its sync plugin writes for each transaction.
//
// A few people write paragraphs and headings, split and join them, mark words, quote, move and delete whole
// passages; in the end most nodes of the document are deleted ones. One seed makes one history. No view is needed:
// `updateYFragment` is what the plugin calls with each new ProseMirror document.

import * as Y from 'yjs'
import { schema } from 'prosemirror-schema-basic'
import { EditorState, TextSelection } from 'prosemirror-state'
import { TransformError, canJoin, canSplit, findWrapping, liftTarget } from 'prosemirror-transform'
import { initProseMirrorDoc, updateYFragment } from 'y-prosemirror'
import { randomOf } from './histories.mjs'

const WORDS = ['the ', 'merge ', 'of ', 'a document ', 'naïve ', 'is ', 'kept 😀 ', 'and ', 'deleted, ', 'again. ', '漢字 ']

class Writer {
  constructor (random, updates) {
    this.random = random
    this.ydoc = new Y.Doc()
    this.ydoc.clientID = 1 + random.below(2 ** 32 - 1)
    this.ydoc.on('update', (update, origin) => { if (origin !== 'remote') updates.push(update) })
    this.load()
  }

  load () {
    const { doc, meta } = initProseMirrorDoc(this.ydoc.getXmlFragment('prosemirror'), schema)
    this.meta = meta
    this.state = EditorState.create({ schema, doc })
  }

  receive (update) {
    Y.applyUpdate(this.ydoc, update, 'remote')
    this.load()
  }

  // Applies what `change` makes of a transaction, and writes it as the plugin would: one update. What the document does
  // not allow, a heading joined to a quotation, is not done.
  edit (change) {
    const transaction = this.state.tr
    try {
      change(transaction)
    } catch (error) {
      if (error instanceof TransformError) return
      throw error
    }
    if (!transaction.docChanged) return
    this.state = this.state.apply(transaction)
    this.ydoc.transact(() => updateYFragment(this.ydoc, this.ydoc.getXmlFragment('prosemirror'), this.state.doc, this.meta))
  }

  // A position inside some block of text.
  somewhere () {
    const found = TextSelection.near(this.state.doc.resolve(this.random.below(this.state.doc.content.size + 1)))
    return found.$head.parent.isTextblock ? found.head : null
  }

  passage (length) {
    const from = this.somewhere()
    if (from === null) return null
    return [from, Math.min(from + 1 + this.random.below(length), this.state.doc.content.size)]
  }

  // Places the cursor and types: a letter a transaction, some of them erased at once.
  write (words) {
    let at = this.somewhere()
    for (let i = 0; i < words; i++) {
      for (const letter of this.random.pick(WORDS)) {
        if (at === null) this.edit(tr => tr.insert(0, schema.node('paragraph')))
        at ??= this.somewhere()
        this.edit(tr => tr.insertText(letter, at))
        at += letter.length
        if (this.random.chance(0.06)) {
          this.edit(tr => tr.delete(at - letter.length, at))
          at -= letter.length
        }
      }
    }
    if (at !== null && this.random.chance(0.5)) this.split(at)
  }

  split (at) {
    if (at !== null && canSplit(this.state.doc, at)) this.edit(tr => tr.split(at))
  }

  join () {
    const at = this.somewhere()
    const before = at === null ? null : this.state.doc.resolve(at).before()
    if (before !== null && before > 0 && canJoin(this.state.doc, before)) this.edit(tr => tr.join(before))
  }

  mark () {
    const range = this.passage(20)
    const mark = this.random.pick([schema.mark('strong'), schema.mark('em'), schema.mark('code'), schema.mark('link', { href: 'https://yjs.dev' })])
    if (range !== null) this.edit(tr => this.random.chance(0.7) ? tr.addMark(...range, mark) : tr.removeMark(...range, mark.type))
  }

  retype () {
    const range = this.passage(30)
    if (range === null) return
    const [type, attributes] = this.random.pick([['heading', { level: 1 + this.random.below(3) }], ['paragraph', null]])
    this.edit(tr => tr.setBlockType(...range, schema.nodes[type], attributes))
  }

  quote () {
    const range = this.passage(60)
    if (range === null) return
    const blocks = this.state.doc.resolve(range[0]).blockRange(this.state.doc.resolve(range[1]))
    if (blocks === null) return
    const wrapping = findWrapping(blocks, schema.nodes.blockquote)
    const target = liftTarget(blocks)
    if (target !== null) this.edit(tr => tr.lift(blocks, target))
    else if (wrapping !== null) this.edit(tr => tr.wrap(blocks, wrapping))
  }

  erase (length) {
    const range = this.passage(length)
    if (range !== null) this.edit(tr => tr.deleteRange(...range))
  }

  // Cuts a block out and pastes it elsewhere, which for Yjs deletes it and writes it anew.
  move () {
    const { doc } = this.state
    if (doc.childCount < 3) return
    const index = this.random.below(doc.childCount)
    const node = doc.child(index)
    let at = 0
    for (let i = 0; i < index; i++) at += doc.child(i).nodeSize
    this.edit(tr => {
      tr.delete(at, at + node.nodeSize)
      const other = this.random.below(tr.doc.childCount)
      let target = 0
      for (let i = 0; i < other; i++) target += tr.doc.child(i).nodeSize
      tr.insert(target, node)
    })
  }
}

const STEPS = [
  ...Array(6).fill(writer => writer.write(1 + writer.random.below(12))),
  writer => writer.split(writer.somewhere()),
  writer => writer.split(writer.somewhere()),
  writer => writer.join(),
  writer => writer.mark(),
  writer => writer.mark(),
  writer => writer.retype(),
  writer => writer.quote(),
  writer => writer.erase(12),
  writer => writer.erase(120),
  writer => writer.move()
]

export const prosemirrorHistory = (seed, steps, people) => {
  const random = randomOf(seed)
  const updates = []
  const writers = Array.from({ length: people }, () => new Writer(random, updates))
  for (let step = 0; step < steps; step++) {
    const writer = random.pick(writers)
    random.pick(STEPS)(writer)
    const other = random.pick(writers)
    if (other !== writer && random.chance(0.7)) other.receive(Y.encodeStateAsUpdate(writer.ydoc, Y.encodeStateVector(other.ydoc)))
  }
  return updates
}
