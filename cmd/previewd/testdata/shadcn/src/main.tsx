import { QueryClient, QueryClientProvider } from '@tanstack/react-query'
import { createRoot } from 'react-dom/client'
import { BrowserRouter, Route, Routes } from 'react-router-dom'
import { Toaster } from 'sonner'

import { Orders } from './Orders'
import './index.css'

createRoot(document.getElementById('root')!).render(
  <QueryClientProvider client={new QueryClient()}>
    <BrowserRouter><Routes><Route path="*" element={<Orders />} /></Routes></BrowserRouter>
    <Toaster />
  </QueryClientProvider>,
)
