// The page that a browser opens: Tiptap's editor with its stock Collaboration and caret extensions on the stock
// HocuspocusProvider, as Tiptap's own guide has them. What the page is for stands in its URL's parameters.

import { Editor } from '@tiptap/core'
import { Collaboration } from '@tiptap/extension-collaboration'
import { CollaborationCaret } from '@tiptap/extension-collaboration-caret'
import { Document } from '@tiptap/extension-document'
import { Paragraph } from '@tiptap/extension-paragraph'
import { Text } from '@tiptap/extension-text'
import { HocuspocusProvider } from '@hocuspocus/provider'

const { url, room, user, token = '' } = Object.fromEntries(new URLSearchParams(location.search))
const provider = new HocuspocusProvider({ url, name: room, token })
const editor = new Editor({
  element: document.getElementById('page'),
  extensions: [
    Document,
    Paragraph,
    Text,
    Collaboration.configure({ document: provider.document }),
    CollaborationCaret.configure({ provider, user: { name: user, color: '#30bced' } })
  ]
})
Object.assign(window, { provider, editor })
