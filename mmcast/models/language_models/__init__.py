from .bert import BERT_SOURCE, BertTextEncoder

__all__ = ['BERT_SOURCE', 'BertTextEncoder']
