from .bert import BERT_SOURCE, BertTextEncoder, check_language_model

__all__ = ['BERT_SOURCE', 'BertTextEncoder', 'check_language_model']
